//! `cargo xtask fuzz`: the fuzz targets, by cargo-fuzz and libFuzzer, on the compiler that builds everything else.
//!
//! What the fuzzer learns stays below the target directory; the seeds that the repository keeps are read and never
//! written. An input that fails is left there too, and its path is the last thing printed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::process;

/// The targets, as `tests/fuzz/fuzz_targets` names them.
const TARGETS: [&str; 3] = ["parse", "balance", "quotes"];

/// The crate of the targets.
const CRATE: &str = "tests/fuzz";

/// The longest input; some sixteen packets are made of one.
const LONGEST: u32 = 1024;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// One target; all of them, one after the other, unless said.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets; fails at the first input that one of them fails with.
pub fn fuzz(options: &Options) -> Result<()> {
    let folder = std::env::current_dir()?.join(process::target_dir()).join("xtask/fuzz");
    let program = installed(&folder)?;
    for target in TARGETS.into_iter().filter(|name| options.target.as_ref().is_none_or(|only| only == name)) {
        run(&program, &folder, target, options.seconds)?;
    }
    Ok(())
}

/// The `cargo-fuzz` that is to run: the one that is there, or one that is installed below the target directory.
fn installed(folder: &Path) -> Result<Command> {
    let version = process::cargo(&["fuzz", "--version"]).output()?;
    if version.status.success() {
        return Ok(process::cargo(&["fuzz"]));
    }
    let root = folder.join("tools");
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = process::cargo(&["install", "--locked", "cargo-fuzz", "--root"]);
        process::run("Install cargo-fuzz below the target directory", install.arg(&root))?;
    }
    let mut command = Command::new(program);
    command.arg("fuzz").current_dir(process::workspace());
    Ok(command)
}

/// Runs one target.
fn run(program: &Command, folder: &Path, target: &str, seconds: u32) -> Result<()> {
    let learnt = folder.join("corpus").join(target);
    let failed = folder.join("failed").join(target);
    for made in [&learnt, &failed] {
        fs::create_dir_all(made).with_context(|| format!("{} cannot be made", made.display()))?;
    }
    let mut command = Command::new(program.get_program());
    command.args(program.get_args()).current_dir(process::workspace());
    // The instrumentation that libFuzzer needs is an option of the compiler that only this opens on a stable one.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", folder.join("build"));
    command.args(["run", "--fuzz-dir", CRATE, "--sanitizer", "none", "--features", "libfuzzer", target]);
    command.arg(&learnt).arg(process::workspace().join(CRATE).join("corpus").join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
    command.arg(format!("-artifact_prefix={}/", failed.display()));
    let ran = process::run(&format!("Fuzz {target} for {seconds} s"), &mut command);
    if let Err(error) = ran {
        bail!("{error:#}; inputs that fail are kept in {}", failed.display());
    }
    Ok(())
}
