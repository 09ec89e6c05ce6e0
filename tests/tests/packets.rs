//! The packet tables on the host: the data path's library over collections of `std`.

use lb_tests::packets::{Model, cases, run_all, scene};

#[test]
fn every_case_holds_in_the_model() {
    run_all(&cases::all(), |case, run| {
        run(&mut Model::new(scene::config(case.ports, case.trust), case.flows));
    });
}
