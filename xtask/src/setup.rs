//! `cargo xtask setup`: finds or installs all that building, demo and tests need, and says what before it does it.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    bpf_linker, packages,
    process::{as_root, run},
    toolchain::{self, Toolchain},
};

/// Debian's own compiler with its sources, for machines that do not reach rustup's server.
const DEBIAN_TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Installs what is missing; with `check`, only says what is missing and fails if anything is.
pub fn setup(check: bool) -> Result<()> {
    let mut missing: Vec<String> =
        packages::missing(Path::new("/")).iter().map(|need| describe(need)).collect();
    let chosen = toolchain::choose(&toolchain::installed(), &toolchain::linkers());
    match &chosen {
        Some((toolchain, linker)) => missing.extend(bpf_linker::unproven(toolchain, linker)),
        None => missing.extend(describe_toolchain()),
    }
    if !missing.is_empty() {
        println!("set-up: missing on this machine:");
        for line in &missing {
            println!(" - {line}");
        }
        if check {
            bail!("{} missing; `cargo xtask setup` installs what it can", count(missing.len()));
        }
        let mut apt = Apt::find();
        install_programs(apt.as_mut())?;
        let toolchain = install_toolchain(apt.as_mut())?;
        bpf_linker::install_and_prove(&toolchain, apt.as_mut())?;
    }
    let (toolchain, linker) = toolchain::choose(&toolchain::installed(), &toolchain::linkers())
        .context("set-up ended without a compiler and a linker for the BPF target")?;
    let (major, minor, patch) = toolchain.compiler.release;
    println!(
        "set-up: complete (rustc {major}.{minor}.{patch} of {}, {}, {} programs)",
        toolchain.name,
        linker.path.display(),
        packages::NEEDS.len()
    );
    Ok(())
}

/// "1 thing is", "3 things are".
fn count(things: usize) -> String {
    if things == 1 { "1 thing is".to_owned() } else { format!("{things} things are") }
}

/// A missing program in words, with its packages.
fn describe(need: &packages::Need) -> String {
    format!(
        "{}: {} (packages of Debian or Ubuntu: {})",
        need.purpose,
        need.shown_by[0],
        need.packages.join(" or ")
    )
}

/// What of compiler and linker is missing, in words.
fn describe_toolchain() -> Vec<String> {
    let toolchains = toolchain::installed();
    let Some(newest) = toolchain::with_source(&toolchains).first().copied().cloned() else {
        let (major, minor, _) = toolchain::OLDEST_RUSTC;
        return vec![
            format!(
                "the kernel program's compiler: Rust {major}.{minor} or newer with its sources (rustup component add \
                 rust-src, or Debian's packages {})",
                DEBIAN_TOOLCHAIN.join(" ")
            ),
            "the kernel program's linker: bpf-linker with an LLVM not older than that compiler's".to_owned(),
        ];
    };
    vec![format!(
        "the kernel program's linker: bpf-linker with LLVM {} or newer, for {}",
        newest.compiler.llvm, newest.name
    )]
}

/// Installs the missing programs of the host.
fn install_programs(apt: Option<&mut Apt>) -> Result<()> {
    let missing = packages::missing(Path::new("/"));
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = apt else {
        let list: Vec<String> = missing.iter().map(|need| format!(" - {}", describe(need))).collect();
        bail!(
            "this system has no apt-get, so set-up cannot install for you. With the system's own package manager \
             install what brings these files (Debian's package names are in brackets), then run it again:\n{}",
            list.join("\n")
        );
    };
    let names: Vec<&str> =
        missing.iter().flat_map(|need| need.packages).flat_map(|set| set.split(' ')).collect();
    let available = apt.available(&names)?;
    let mut wanted = Vec::new();
    for need in missing {
        let set = packages::choose(need, |name| available.iter().any(|have| have == name))
            .with_context(|| format!("apt knows no package for {}", describe(need)))?;
        wanted.extend(set);
    }
    apt.install("installing the programs that demo and tests use; none is started or enabled", &wanted)?;
    let left: Vec<String> = packages::missing(Path::new("/")).iter().map(|need| describe(need)).collect();
    if !left.is_empty() {
        bail!("still missing after the installation:\n{}", left.join("\n"));
    }
    Ok(())
}

/// Finds or installs a compiler that has its sources and for whose LLVM a linker is there or can be had.
fn install_toolchain(mut apt: Option<&mut Apt>) -> Result<Toolchain> {
    if let Some(toolchain) = obtainable(apt.as_deref_mut())? {
        return Ok(toolchain);
    }
    for (why, arguments) in rustup_ways(&toolchain::installed()) {
        let mut rustup = Command::new("timeout");
        rustup.args(["600", "rustup"]).args(&arguments).env("RUSTUP_MAX_RETRIES", "0");
        match run(&why, &mut rustup) {
            Err(error) => println!("   that did not work ({error:#}); trying the next way"),
            Ok(()) => {
                if let Some(toolchain) = obtainable(apt.as_deref_mut())? {
                    return Ok(toolchain);
                }
            }
        }
    }
    if let Some(apt) = apt
        && apt.available(&DEBIAN_TOOLCHAIN)?.len() == DEBIAN_TOOLCHAIN.len()
    {
        apt.install("installing Debian's Rust compiler with its sources, beside yours", &DEBIAN_TOOLCHAIN)?;
        if let Some(toolchain) = obtainable(Some(apt))? {
            return Ok(toolchain);
        }
    }
    // The project's released linker may serve where none can be built.
    if let Some(newest) = toolchain::with_source(&toolchain::installed()).first() {
        return Ok((*newest).clone());
    }
    let (major, minor, _) = toolchain::OLDEST_RUSTC;
    bail!(
        "no compiler for the kernel program could be had. It takes Rust {major}.{minor} or newer with its sources: \
         `rustup component add rust-src` (rustup from https://rustup.rs), or, on Debian 12 with its security \
         updates, `apt-get install {}`",
        DEBIAN_TOOLCHAIN.join(" ")
    )
}

/// The best toolchain with sources: one whose bitcode an installed linker reads, else one for whose LLVM a linker
/// can be built.
fn obtainable(mut apt: Option<&mut Apt>) -> Result<Option<Toolchain>> {
    let toolchains = toolchain::installed();
    if let Some((toolchain, _)) = toolchain::choose(&toolchains, &toolchain::linkers()) {
        return Ok(Some(toolchain));
    }
    let usable = toolchain::with_source(&toolchains);
    for toolchain in &usable {
        if bpf_linker::llvm_obtainable(toolchain.compiler.llvm, apt.as_deref_mut())? {
            return Ok(Some((*toolchain).clone()));
        }
    }
    Ok(None)
}

/// The ways to sources through rustup, the lightest first: for a toolchain that is there, then a nightly one.
fn rustup_ways(toolchains: &[Toolchain]) -> Vec<(String, Vec<String>)> {
    if Command::new("rustup").arg("--version").output().is_err() {
        return Vec::new();
    }
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    // Only rustup's own toolchains take components; a linked one lives elsewhere.
    let own = toolchains.iter().find(|toolchain| {
        toolchain.root.parent().is_some_and(|parent| parent.ends_with("toolchains"))
            && !toolchain.has_source
            && toolchain.compiler.release >= toolchain::OLDEST_RUSTC
    });
    let mut ways: Vec<(String, Vec<String>)> = own
        .map(|toolchain| {
            let mut arguments = words("component add rust-src --toolchain");
            arguments.push(toolchain.name.clone());
            (format!("adding the compiler's sources to {}", toolchain.name), arguments)
        })
        .into_iter()
        .collect();
    ways.push((
        "installing a nightly toolchain with its sources".to_owned(),
        words("toolchain install nightly --profile minimal --component rust-src --no-self-update"),
    ));
    ways
}

/// apt, with its lists brought up to date once before the first look or installation.
pub struct Apt {
    updated: bool,
}

impl Apt {
    /// apt, where this system has it.
    fn find() -> Option<Self> {
        Path::new("/usr/bin/apt-get").exists().then_some(Self { updated: false })
    }

    /// Brings the lists of packages up to date, once.
    fn update(&mut self) {
        if self.updated {
            return;
        }
        self.updated = true;
        let mut update = as_root("apt-get");
        // One broken source of the user's must not stop the rest; what is then missing shows by itself.
        if let Err(error) = run("asking apt's sources for their packages", update.args(["update", "-qq"])) {
            println!("   {error:#}; going on with the lists that there are");
        }
    }

    /// Which of `names` can be installed.
    pub fn available(&mut self, names: &[&str]) -> Result<Vec<String>> {
        self.update();
        let policy = Command::new("apt-cache").arg("policy").args(names).env("LC_ALL", "C").output()?;
        let policy = String::from_utf8_lossy(&policy.stdout).into_owned();
        Ok(packages::parse_candidates(&policy).into_iter().map(str::to_owned).collect())
    }

    /// Installs packages and starts nothing.
    pub fn install(&mut self, why: &str, names: &[&str]) -> Result<()> {
        self.update();
        let mut shell = as_root("sh");
        shell.args(["-c", include_str!("apt_install.sh"), "apt_install.sh"]).args(names);
        run(why, &mut shell)
    }
}
