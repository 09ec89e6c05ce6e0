//! `cargo xtask demo`: set-up, build as the invoking user, then the demo as root.

use std::{env, os::unix::process::CommandExt as _, path::Path};

use anyhow::{Context, Result};

use crate::{
    process::{self, as_root},
    setup,
};

/// What to do after the demo.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Leave everything running until ctrl-C, and print the commands to look around.
    #[arg(long)]
    keep: bool,
}

/// Sets up and builds, then becomes the demo: ctrl-C and the exit code are the demo's own. Returns only if that fails.
pub fn demo(options: &Options) -> Result<()> {
    build_and_become("lb-demo", if options.keep { &["--keep"] } else { &[] })
}

/// Sets up, builds the balancer and the programs of the lab, and becomes one of these. Returns only if that fails.
pub fn build_and_become(program: &str, arguments: &[&str]) -> Result<()> {
    setup::setup(false)?;
    let build = ["build", "--locked", "--package", "lb-userspace", "--package", "lb-tests", "--bins"];
    process::run(&format!("building the balancer and {program}"), &mut process::cargo(&build))?;
    println!();
    // cargo's own directory may be named relative to where it was started.
    let programs = env::current_dir()?.join(process::target_dir()).join("debug");
    let mut command = in_the_lab(&programs, program, arguments);
    Err(command.exec()).with_context(|| format!("{} does not start", process::shown(&command)))
}

/// A program of the lab as root. sudo empties the environment, so `env` sets again what the program reads.
fn in_the_lab(programs: &Path, program: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = as_root("env");
    command.arg(format!("LB_BIN={}", programs.join("lb").display()));
    command.arg(programs.join(program)).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_lab_gets_the_balancer_beside_it_and_its_arguments() {
        for (program, arguments, end) in [
            ("lb-demo", &[][..], "LB_BIN=/t/debug/lb /t/debug/lb-demo"),
            ("lb-demo", &["--keep"], "/t/debug/lb-demo --keep"),
            ("lb-bench", &["php"], "LB_BIN=/t/debug/lb /t/debug/lb-bench php"),
        ] {
            let shown = process::shown(&in_the_lab(Path::new("/t/debug"), program, arguments));
            assert!(shown.ends_with(end), "{shown}");
        }
    }
}
