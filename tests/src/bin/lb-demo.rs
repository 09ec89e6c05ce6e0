//! `lb-demo`: plays the demo as root. `cargo xtask demo` builds and starts it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use lb_tests::demo::{self, Error, Interrupt, Options};
use lb_tests::lab::skip::{self, Need};

/// What the program needs of the machine.
const NEEDS: [Need; 4] = [Need::Lab, Need::Bpf, Need::Php, Need::Galera];

/// The exit code of a program that ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let keep = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => false,
        (Some("--keep"), None) => true,
        _ => {
            eprintln!("usage: lb-demo [--keep]");
            return ExitCode::from(2);
        }
    };
    if let Some(reason) = NEEDS.into_iter().find_map(skip::missing) {
        eprintln!("error: the demo cannot run here: {reason}");
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
    let live = io::stdout().is_terminal();
    match demo::run(&Options { keep, live, interrupt }, io::stdout()) {
        Ok(summary) if summary.is_true() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error @ Error::Interrupted) => {
            eprintln!("\n{error}");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}
