//! `cargo xtask test`: every check of this repository, in the order in which a failure is cheapest.
//!
//! Everything is built as the invoking user; only the test binaries that lay out network namespaces or load programs
//! run as root. Plain `cargo test` builds them and libtest runs them, so that no test runner has to be installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    lanes::{self, record, run_all},
    process::{self, as_root},
    setup,
    summary::Summary,
    tee::Show,
    toolchain::{self, KernelBuild},
};

/// Where the skips stand that CI accepts.
const ALLOWED_SKIPS: &str = ".ci/allowed-skips";

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Leave out what needs root: the tests in the kernel and the end-to-end tests.
    #[arg(long)]
    quick: bool,
    /// How many test programs run at a time; those that measure time run alone.
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Run only tests with this in their names, and no format, lints and documentation tests.
    filter: Option<String>,
}

/// A test binary that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub struct Binary {
    /// The folder of its package, where it runs.
    pub package: PathBuf,
    /// The target's name.
    pub name: String,
    /// The file.
    pub program: PathBuf,
}

impl Binary {
    /// Whether its tests need root: all of the lab's package, and the ones elsewhere that say so in their name.
    fn needs_root(&self) -> bool {
        self.package.ends_with("tests") || self.name.starts_with("root_")
    }
}

/// Runs everything, prints the sum as the last line, and tells whether all is well.
pub fn test(options: &Options) -> ExitCode {
    let mut summary = Summary::default();
    let started = Instant::now();
    let done = steps(options, &mut summary);
    let mut skips = summary.skips().peekable();
    if skips.peek().is_some() {
        println!("\nskipped:");
    }
    for skip in skips {
        println!(" - {}: {}", skip.test, skip.reason);
    }
    println!("\nall steps: {}", seconds(started.elapsed()));
    if let Err(error) = &done {
        println!("error: {error:#}");
    }
    println!("{summary}");
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The steps, until one fails.
fn steps(options: &Options, summary: &mut Summary) -> Result<()> {
    step("set-up", || setup::setup(false))?;
    if options.filter.is_none() {
        step("format", || checked(&mut process::cargo(&["fmt", "--all", "--check"])))?;
        let clippy =
            ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
        step("lints", || checked(&mut process::cargo(&clippy)))?;
        step("lints of the kernel shell", lint_kernel_shell)?;
    }
    let (binaries, agent) = step("build", build)?;
    let (as_root, as_user): (Vec<_>, Vec<_>) = binaries.into_iter().partition(Binary::needs_root);
    let alone = lanes::alone()?;
    let lanes = (options.at_once, &alone);
    let command = |binary: &Binary| run_as_user(binary, options);
    step("unit tests", || run_all(&as_user, lanes, command, false, summary))?;
    if options.filter.is_none() {
        step("documentation tests", || {
            let mut cargo = process::cargo(&["test", "--workspace", "--doc", "--locked", "--quiet"]);
            record("documentation", &mut cargo, Show::Nothing, &Mutex::new(summary))
        })?;
    }
    if !options.quick {
        let command = |binary: &Binary| run_as_root(binary, &agent, options);
        step("tests in the kernel and end to end", || run_all(&as_root, lanes, command, true, summary))?;
    }
    let allowed = fs::read_to_string(process::workspace().join(ALLOWED_SKIPS)).unwrap_or_default();
    let refused: Vec<&str> = summary.not_allowed(&allowed).iter().map(|skip| skip.test.as_str()).collect();
    if env::var("CI").is_ok_and(|ci| ci == "true") && !refused.is_empty() {
        bail!("skipped, but not on the list {ALLOWED_SKIPS}: {}", refused.join(", "));
    }
    Ok(())
}

/// Announces a step, does it, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {name}");
    let started = Instant::now();
    let done = work().with_context(|| format!("{name} failed"));
    let outcome = if done.is_ok() { "done" } else { "FAILED" };
    println!("== {name}: {outcome} in {}", seconds(started.elapsed()));
    done
}

/// A duration for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Runs a command with this program's output.
fn checked(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| process::shown(command))?;
    if !status.success() {
        bail!("{} ended with {status}", process::shown(command));
    }
    Ok(())
}

/// Lints the kernel shell for its own target: with clippy where that toolchain has it (Debian's has not), else with
/// the compiler's own lints.
fn lint_kernel_shell() -> Result<()> {
    let (toolchain, linker) = toolchain::choose(&toolchain::installed(), &toolchain::linkers())
        .context("no compiler and linker for the BPF target")?;
    let target_dir = process::target_dir().join("xtask/kernel-lints");
    let build = KernelBuild {
        toolchain: &toolchain,
        linker: &linker,
        arch: env::consts::ARCH,
        big_endian: cfg!(target_endian = "big"),
        target_dir: &target_dir,
    };
    let shell = ["--package", "lb-ebpf", "--bin", "lb-xdp", "--features", "kernel", "--quiet"];
    let has_clippy = toolchain.program("cargo-clippy").exists();
    let mut cargo = build.cargo(if has_clippy { "clippy" } else { "rustc" });
    cargo.args(shell);
    if !has_clippy {
        cargo.args(["--profile", "check"]);
    }
    checked(cargo.args(["--", "-Dwarnings"]).current_dir(process::workspace()))
}

/// Builds the agent and all tests; returns the test binaries and the agent's program.
fn build() -> Result<(Vec<Binary>, PathBuf)> {
    let json = "--message-format=json-render-diagnostics";
    let agent =
        built(&mut process::cargo(&["build", "--package", "lb-userspace", "--bin", "lb", "--locked", json]))?;
    let agent = artifacts(&agent, false).into_iter().find(|binary| binary.name == "lb");
    let tests = built(&mut process::cargo(&["test", "--workspace", "--no-run", "--locked", json]))?;
    Ok((artifacts(&tests, true), agent.context("cargo built no program `lb`")?.program))
}

/// Runs cargo and returns its messages; what the compiler says goes to this program's own output.
pub fn built(cargo: &mut Command) -> Result<String> {
    let output = cargo.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} ended with {}", process::shown(cargo), output.status);
    }
    String::from_utf8(output.stdout).context("cargo's messages are no UTF-8")
}

/// Reads cargo's messages: the programs that it built, either the test binaries or the others.
pub fn artifacts(messages: &str, tests: bool) -> Vec<Binary> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["profile"]["test"].as_bool() == Some(tests))
        .filter_map(|message| {
            Some(Binary {
                program: PathBuf::from(message["executable"].as_str()?),
                package: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
                name: message["target"]["name"].as_str()?.to_owned(),
            })
        })
        .collect()
}

/// libtest's arguments: output of passing tests is shown too, for the skips that they report.
fn libtest_arguments(options: &Options) -> Vec<String> {
    options.filter.iter().cloned().chain(["--show-output".to_owned()]).collect()
}

/// A test binary as cargo itself would run it.
fn run_as_user(binary: &Binary, options: &Options) -> Command {
    let mut command = Command::new(&binary.program);
    command.args(libtest_arguments(options)).current_dir(&binary.package);
    command.env("CARGO_MANIFEST_DIR", &binary.package);
    command
}

/// A test binary as root. sudo empties the environment, so `env` sets again what the tests read.
fn run_as_root(binary: &Binary, agent: &Path, options: &Options) -> Command {
    let assign = |name: &str, value: &Path| format!("{name}={}", value.display());
    let mut command = as_root("env");
    command
        .arg(assign("LB_BIN", agent))
        .arg(assign("CARGO_MANIFEST_DIR", &binary.package))
        .arg("RUST_BACKTRACE=1")
        .args(env::var("CI").ok().map(|ci| format!("CI={ci}")))
        .arg(&binary.program)
        .args(libtest_arguments(options))
        .arg("--test-threads=1")
        .current_dir(&binary.package);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_and_programs_are_told_apart_in_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/w/lb-common/Cargo.toml","target":{"name":"lb_common"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/lb-userspace/Cargo.toml","target":{"name":"lb"},"profile":{"test":false},"executable":"/t/debug/lb"}
{"reason":"compiler-artifact","manifest_path":"/w/lb-common/Cargo.toml","target":{"name":"lb_common"},"profile":{"test":true},"executable":"/t/debug/deps/lb_common-1"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"web"},"profile":{"test":true},"executable":"/t/debug/deps/web-1"}
{"reason":"compiler-artifact","manifest_path":"/w/xtask/Cargo.toml","target":{"name":"root_setup"},"profile":{"test":true},"executable":"/t/debug/deps/root_setup-1"}
{"reason":"build-finished","success":true}
"#;
        let names = |binaries: &[Binary]| {
            binaries.iter().map(|binary| (binary.name.clone(), binary.needs_root())).collect::<Vec<_>>()
        };
        assert_eq!(names(&artifacts(messages, false)), [("lb".to_owned(), false)]);
        assert_eq!(
            names(&artifacts(messages, true)),
            [("lb_common".to_owned(), false), ("web".to_owned(), true), ("root_setup".to_owned(), true)]
        );
    }
}
