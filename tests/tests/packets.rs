//! The packet tables on the host: the data path's library over collections of `std`, and properties of any packet.

use lb_common::cell::Phase::{Answered, Embryonic};
use lb_tests::packets::{
    Case, Model, cases,
    expect::{to_backend, untouched},
    run_all, scene,
    segment::{ACK, SYN, client},
};

#[test]
fn every_case_holds_in_the_model() {
    let cases = cases::all();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 400);
    run_all(&cases, |case| case.run(&mut Model::new(case.setting.config())));
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<String> = cases::all().into_iter().map(|case| case.what).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_case_that_expects_the_wrong_thing_fails() {
    let wrong = [
        Case::new("no account").send(client(SYN), to_backend(scene::A), &[Embryonic]),
        Case::new("wrong phase").send(client(SYN), to_backend(scene::A).opens(scene::A), &[Answered]),
        Case::new("wrong backend").send(client(SYN), to_backend(scene::B).opens(scene::B), &[Embryonic]),
        Case::new("no reason").send(client(ACK), untouched(), &[]),
    ];
    for case in wrong {
        let mut model = Model::new(case.setting.config());
        assert!(case.run(&mut model).is_err(), "{}", case.what);
    }
}
