//! `cargo xtask demo`: set-up, build as the invoking user, then the demo as root.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
};

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
    setup::setup(false)?;
    let build = ["build", "--locked", "--package", "lb-userspace", "--package", "lb-tests", "--bins"];
    process::run("building the balancer and the demo", &mut process::cargo(&build))?;
    println!();
    // cargo's own directory may be named relative to where it was started.
    let programs = env::current_dir()?.join(process::target_dir()).join("debug");
    let mut command = become_demo(&programs, options.keep);
    Err(command.exec()).with_context(|| format!("{} does not start", process::shown(&command)))
}

/// The demo as root. sudo empties the environment, so `env` sets again what the demo reads.
fn become_demo(programs: &Path, keep: bool) -> std::process::Command {
    let program = |name: &str| -> PathBuf { programs.join(name) };
    let mut command = as_root("env");
    command.arg(format!("LB_BIN={}", program("lb").display())).arg(program("lb-demo"));
    if keep {
        command.arg("--keep");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_gets_the_balancer_beside_it_and_keeps_only_if_asked() {
        for (keep, end) in [(false, "LB_BIN=/t/debug/lb /t/debug/lb-demo"), (true, "/t/debug/lb-demo --keep")]
        {
            let shown = process::shown(&become_demo(Path::new("/t/debug"), keep));
            assert!(shown.ends_with(end), "{shown}");
        }
    }
}
