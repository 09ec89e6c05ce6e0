//! The fuzz targets' bodies over the kept corpus and over seeded random inputs, so that they never rot.

use std::{fs, path::Path};

use lb_fuzz::{pace::Dice, targets};

/// Random inputs for each target.
const INPUTS: u64 = 20_000;

fn run(name: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut kept = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is kept in the repository") {
        let bytes = fs::read(entry.expect("a file of the corpus").path()).expect("a file of the corpus");
        body(&bytes);
        kept += 1;
    }
    assert!(kept > 0, "the corpus of {name} is empty");
    for seed in 0..INPUTS {
        let mut dice = Dice(seed);
        let length = dice.below(600) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
        let ran = std::panic::catch_unwind(|| body(&bytes));
        assert!(ran.is_ok(), "{name} fails with the input of seed {seed}");
    }
}

#[test]
fn any_bytes_pass_the_parser() {
    run("parse", targets::parse);
}

#[test]
fn any_packets_pass_the_data_path_whatever_its_tables_hold() {
    run("balance", targets::balance);
}

#[test]
fn any_quotes_are_translated_or_left_alone() {
    run("quotes", targets::quotes);
}
