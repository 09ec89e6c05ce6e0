//! `lb-bench php`, `lb-bench galera`: measures as root. `cargo xtask bench` builds and starts it.
//!
//! The table goes to standard output, everything else to standard error.

use std::io;
use std::process::ExitCode;

use lb_tests::bench::{self, Progress};
use lb_tests::demo::{Error, Interrupt};
use lb_tests::lab::skip::{self, Need};

/// The exit code of a program that ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Clone, Copy)]
enum Bench {
    Php,
    Galera,
}

impl Bench {
    /// What it needs of the machine.
    const fn needs(self) -> &'static [Need] {
        match self {
            Self::Php => &[Need::Lab, Need::Bpf, Need::Php],
            Self::Galera => &[Need::Lab, Need::Bpf, Need::Php, Need::Galera],
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bench = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["php"] => Bench::Php,
        ["galera"] => Bench::Galera,
        _ => {
            eprintln!("usage: lb-bench php|galera");
            return ExitCode::from(2);
        }
    };
    if let Some(reason) = bench.needs().iter().find_map(|need| skip::missing(*need)) {
        eprintln!("error: this cannot run here: {reason}");
        return ExitCode::FAILURE;
    }
    // Before any thread is started.
    let interrupt = match Interrupt::on_signals() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("error: cannot wait for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::stderr();
    let mut progress = Progress::new(&mut out, interrupt);
    let report = match bench {
        Bench::Php => bench::php::run(&bench::php::Plan::default(), &mut progress),
        Bench::Galera => bench::galera::run(&bench::galera::Plan::default(), &mut progress),
    };
    match report {
        Ok(report) => {
            print!("{report}");
            report.verdicts().iter().for_each(|line| eprintln!("{line}"));
            if report.is_true() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error @ Error::Interrupted) => {
            eprintln!("{error}");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
