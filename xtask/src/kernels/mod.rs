//! `cargo xtask kernels`: the data path in kernels other than the host's, each on a virtual machine.
//!
//! The machines are emulated (QEMU without KVM), so that any host can run them, in a container too. Kernels, the
//! emulator and all that it needs are Debian's packages, unpacked below the target directory and run from there; nothing is
//! installed. In each machine run the test binaries of the package `tests` whose names begin with `root_`: they need a
//! kernel and `ip`, and what they need beyond that they skip by name.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    process,
    tee::{self, Show},
    test,
};

mod apt;
mod console;
mod initramfs;
mod modules;
mod release;
mod tools;

use apt::Apt;
use console::Report;
use initramfs::Contents;
use release::{Release, Wanted};
use tools::Tools;

/// Debian's name of the only architecture that this knows, and cargo's for its programs.
const ARCHITECTURE: &str = "amd64";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The kernel's command line: what it has to say goes to the console, and after a panic or an oops it is over at once.
const COMMAND_LINE: &str = "console=ttyS0 quiet oops=panic panic=-1 mitigations=off";

/// Which kernels.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Versions such as `6.1` or `6.12.90`, the newest of each; or `newest`.
    #[arg(value_name = "VERSION", default_values = ["6.1", "newest"])]
    versions: Vec<Wanted>,
    /// Ask the mirror for its kernels again.
    #[arg(long)]
    update: bool,
    /// The mirror of Debian; unless said, the one that the host's own packages come from.
    #[arg(long)]
    mirror: Option<String>,
    /// Seconds that one machine may take.
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

/// What became of one kernel.
struct Outcome {
    name: String,
    report: Report,
    time: Duration,
}

/// Runs the tests in every kernel, prints the sum, and fails if anything is wrong in any of them.
pub fn kernels(options: &Options) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("other kernels are run on x86_64 only; this is {}", env::consts::ARCH);
    }
    let folder = env::current_dir()?.join(process::target_dir()).join("xtask/kernels");
    fs::create_dir_all(&folder)?;
    // Two runs at a time would unpack into the same folders; the lock ends with this process.
    let owner = File::create(folder.join("lock"))?;
    if owner.try_lock().is_err() {
        println!("   waiting for another run to end");
        owner.lock()?;
    }
    let apt = Apt::new(&folder.join("apt"), options.mirror.clone(), options.update)?;
    let wanted = find(&apt, &options.versions)?;
    let tools = Tools::get(&apt, &folder.join("tools"))?;
    let (agent, tests) = build(&folder.join("build"))?;
    let limit = Duration::from_secs(options.limit);
    let mut outcomes = Vec::new();
    for release in wanted {
        println!("\n== Linux {}", release.name);
        let kernel = folder.join(format!("linux-{}", release.name));
        let packages: Vec<&str> = release.packages.iter().map(String::as_str).collect();
        apt.unpack(&kernel, "downloading the kernel", &packages)?;
        let contents = Contents { agent: &agent, tests: &tests, kernel: &kernel };
        let archive = folder.join("initramfs");
        initramfs::pack(&contents, &tools, &folder.join("stage"), &archive)?;
        outcomes.push(boot(&release, &kernel, &archive, &tools, limit)?);
    }
    println!("\n{}", table(&outcomes));
    let bad: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !outcome.report.problems.is_empty())
        .map(|bad| bad.name.as_str())
        .collect();
    if !bad.is_empty() {
        bail!("not all is well in: {}", bad.join(", "));
    }
    Ok(())
}

/// The releases that are wanted, each once.
fn find(apt: &Apt, wanted: &[Wanted]) -> Result<Vec<Release>> {
    let names = apt.names("linux-")?;
    let releases = release::releases(names.iter().map(String::as_str), ARCHITECTURE);
    let mut found: Vec<Release> = Vec::new();
    for wanted in wanted {
        let Some(release) = release::choose(&releases, wanted) else {
            let all: Vec<&str> = releases.iter().map(|release| release.name.as_str()).collect();
            bail!("the mirror has no kernel {wanted}; it has {}", all.join(", "));
        };
        if !found.contains(release) {
            found.push(release.clone());
        }
    }
    Ok(found)
}

/// Builds agent and tests without need of any library, in a folder of their own: other flags would otherwise make the
/// next ordinary build begin anew.
fn build(folder: &Path) -> Result<(PathBuf, Vec<(String, PathBuf)>)> {
    println!("   building agent and tests for the machines");
    let mut cargo = process::cargo(&["build", "--locked", "--quiet", "--target", TARGET]);
    cargo.args(["--package", "lb-userspace", "--bin", "lb", "--package", "lb-tests", "--test", "root_*"]);
    cargo.arg("--message-format=json-render-diagnostics").arg("--target-dir").arg(folder);
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // The machine keeps them in its memory; the names of functions stay, for backtraces. An emulated processor is slow.
    cargo.env("CARGO_PROFILE_DEV_STRIP", "debuginfo").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    let messages = test::built(&mut cargo)?;
    let agent = test::artifacts(&messages, false).into_iter().find(|binary| binary.name == "lb");
    let mut tests: Vec<(String, PathBuf)> =
        test::artifacts(&messages, true).into_iter().map(|binary| (binary.name, binary.program)).collect();
    tests.sort();
    if tests.is_empty() {
        bail!("cargo built no tests");
    }
    Ok((agent.context("cargo built no program `lb`")?.program, tests))
}

/// Runs the machine to its end, for at most `limit`.
fn boot(release: &Release, kernel: &Path, archive: &Path, tools: &Tools, limit: Duration) -> Result<Outcome> {
    let image = image(kernel, &release.name)?;
    let mut machine = tools.command("usr/bin/qemu-system-x86_64");
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        machine.arg("-L").arg(tools.file(firmware));
    }
    machine.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    machine.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    machine.arg("-kernel").arg(image).arg("-initrd").arg(archive).args(["-append", COMMAND_LINE]);
    let started = Instant::now();
    let ran = tee::run(&mut machine, Show::TestsOf(&release.name), limit)?;
    let mut report = Report::read(&ran.output);
    if !ran.succeeded {
        report.problems.push(format!("the machine {}", ran.outcome));
    }
    if !report.problems.is_empty() {
        println!("{}", ran.output);
    }
    println!("{report}");
    for skip in report.summary.skips() {
        println!("   skipped: {}: {}", skip.test, skip.reason);
    }
    for complaint in &report.complaints {
        println!("   the kernel said: {complaint}");
    }
    for problem in &report.problems {
        println!("   problem: {problem}");
    }
    Ok(Outcome { name: release.name.clone(), report, time: started.elapsed() })
}

/// The bootable image among a kernel's files: beside its modules, or in the old place.
fn image(kernel: &Path, name: &str) -> Result<PathBuf> {
    let full = format!("{name}-cloud-{ARCHITECTURE}");
    let places = [format!("usr/lib/modules/{full}/vmlinuz"), format!("boot/vmlinuz-{full}")];
    let found = places.iter().map(|place| kernel.join(place)).find(|place| place.is_file());
    found.with_context(|| format!("the packages of {full} hold no kernel"))
}

/// One line for each kernel.
fn table(outcomes: &[Outcome]) -> String {
    let figure = |figure: Option<u32>| figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string());
    let head =
        format!("{:<16} {:<32} {:>12} {:>6} {:>8}", "kernel", "tests", "instructions", "stack", "seconds");
    let lines = outcomes.iter().map(|Outcome { name, report, time }| {
        let tests = report.summary.to_string();
        let (instructions, stack) = (figure(report.most_instructions()), figure(report.most_stack()));
        let seconds = time.as_secs();
        let verdict = if report.problems.is_empty() { "" } else { "  FAILED" };
        format!("{name:<16} {tests:<32} {instructions:>12} {stack:>6} {seconds:>8}{verdict}")
    });
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_a_line_for_each_kernel_and_marks_the_bad_ones() {
        let good = "test result: ok. 7 passed; 0 failed; 0 ignored\nlb: 69170 instructions verified\n\
                    bytes of stack: {\"lb\": 336}\nlb-kernels: done\n";
        let outcome = |name: &str, console: &str, seconds: u64| Outcome {
            name: name.to_owned(),
            report: Report::read(console),
            time: Duration::from_secs(seconds),
        };
        let outcomes = [outcome("6.1.0-56", good, 64), outcome("7.3.4+deb13", "", 600)];
        assert_eq!(
            table(&outcomes),
            "kernel           tests                            instructions  stack  seconds\n\
             6.1.0-56         7 passed, 0 failed, 0 skipped           69170    336       64\n\
             7.3.4+deb13      0 passed, 0 failed, 0 skipped               -      -      600  FAILED"
        );
    }
}
