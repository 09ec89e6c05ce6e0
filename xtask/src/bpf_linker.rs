//! `bpf-linker`: installs one for a compiler's LLVM, and proves it by linking a real object.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    process::{self, run},
    setup::Apt,
    toolchain::{self, KernelBuild, Linker, Toolchain},
};

/// The versions of bpf-linker that are built from source, and the LLVM majors that they have features for.
const KNOWN: (&str, std::ops::RangeInclusive<u32>) = ("^0.13", 21..=23);

/// Where the project publishes programs that bring their own LLVM.
const RELEASES: &str = "https://github.com/aya-rs/bpf-linker/releases/latest/download";

/// The program that the proof links: it uses `core`, a loop and a panic, and needs no map.
const TRIAL: &str = "#![no_std]\n#![no_main]\n\
    #[unsafe(no_mangle)]\npub extern \"C\" fn sum(until: u64) -> u64 {\n    (0..until).fold(0, |sum, number| sum ^ number)\n}\n\
    #[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {\n    loop {}\n}\n";

/// Whether an LLVM of this major to build a linker with is installed, or can be.
pub fn llvm_obtainable(llvm: u32, apt: Option<&mut Apt>) -> Result<bool> {
    if llvm_prefix(llvm).is_some() {
        return Ok(true);
    }
    let package = format!("llvm-{llvm}-dev");
    Ok(apt.map(|apt| apt.available(&[&package])).transpose()?.is_some_and(|found| !found.is_empty()))
}

/// Where Debian and Ubuntu put the LLVM of this major.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    (prefix.join("bin/llvm-config").exists() && prefix.join("include/llvm-c").exists()).then_some(prefix)
}

/// What is to be proven still about this pair, in words; `None` if a run has proven it.
pub fn unproven(toolchain: &Toolchain, linker: &Linker) -> Option<String> {
    let proven = fs::read_to_string(stamp()).is_ok_and(|proven| proven == identity(toolchain, linker));
    (!proven).then(|| {
        format!("proof that {} links what the compiler of {} writes", linker.path.display(), toolchain.name)
    })
}

/// Installs a linker for `toolchain` unless one is there, and links a trial object with it.
pub fn install_and_prove(toolchain: &Toolchain, apt: Option<&mut Apt>) -> Result<()> {
    // One that does not even start has lost the library that it was built with.
    if !fitting(toolchain).is_some_and(|linker| starts(&linker)) {
        install(toolchain, apt)?;
    }
    prove(toolchain, &fitting(toolchain).context("bpf-linker was installed, but is not found")?)
}

/// Whether the program runs at all.
fn starts(linker: &Linker) -> bool {
    Command::new(&linker.path).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// An installed linker that reads what `toolchain` writes.
fn fitting(toolchain: &Toolchain) -> Option<Linker> {
    toolchain::linkers().into_iter().find(|linker| linker.reads(&toolchain.compiler))
}

/// Builds a linker against the compiler's LLVM, or takes the project's released one where there is no such LLVM.
fn install(toolchain: &Toolchain, mut apt: Option<&mut Apt>) -> Result<()> {
    let llvm = toolchain.compiler.llvm;
    if llvm_prefix(llvm).is_none()
        && llvm_obtainable(llvm, apt.as_deref_mut())?
        && let Some(apt) = apt
    {
        let package = format!("llvm-{llvm}-dev");
        apt.install("installing the LLVM that bpf-linker is built with", &[&package, "libzstd-dev"])?;
    }
    let Some(prefix) = llvm_prefix(llvm) else {
        return install_released().with_context(|| {
            format!(
                "no bpf-linker could be had: neither LLVM {llvm} to build it with (package llvm-{llvm}-dev; \
                 https://apt.llvm.org has it for Debian and Ubuntu) nor the released program from {RELEASES}"
            )
        });
    };
    let feature = format!("llvm-{llvm}");
    let mut cargo = process::cargo(&["install", "bpf-linker", "--locked", "--force"]);
    cargo.args(["--no-default-features", "--features", &feature]).env("LLVM_PREFIX", prefix);
    if KNOWN.1.contains(&llvm) {
        cargo.args(["--version", KNOWN.0]);
    }
    run("building bpf-linker (about a minute)", &mut cargo)
}

/// Downloads the released program, which brings its own LLVM, into cargo's folder of programs.
fn install_released() -> Result<()> {
    let bin = toolchain::cargo_bin().context("no home folder to put bpf-linker into")?;
    let name = format!("bpf-linker-{}-unknown-linux-musl.tar.zst", env::consts::ARCH);
    let archive = process::target_dir().join(&name);
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(process::target_dir())?;
    let mut curl = Command::new("curl");
    curl.args(["-fsSL", "--connect-timeout", "10", "-o"]).arg(&archive).arg(format!("{RELEASES}/{name}"));
    run("fetching the released bpf-linker", &mut curl)?;
    run("unpacking it", Command::new("tar").args(["--zstd", "-xf"]).arg(&archive).arg("-C").arg(bin))
}

/// Links a small program for the BPF target and remembers that it worked.
fn prove(toolchain: &Toolchain, linker: &Linker) -> Result<()> {
    let folder = process::target_dir().join("xtask/link-trial");
    fs::create_dir_all(folder.join("src"))?;
    fs::write(
        folder.join("Cargo.toml"),
        "[package]\nname = \"link-trial\"\nedition = \"2024\"\n[workspace]\n[profile.dev]\npanic = \"abort\"\n",
    )?;
    fs::write(folder.join("src/main.rs"), TRIAL)?;
    let target_dir = folder.join("target");
    let build = KernelBuild {
        toolchain,
        linker,
        arch: env::consts::ARCH,
        big_endian: false,
        target_dir: &target_dir,
    };
    println!("   proving that {} links for {}", linker.path.display(), toolchain.name);
    let output = build.cargo("build").arg("--quiet").current_dir(&folder).output()?;
    if !output.status.success() {
        bail!("linking a trial program failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let object = fs::read(target_dir.join(build.target()).join("debug/link-trial"))?;
    if !is_bpf_object(&object) {
        bail!("{} wrote something that is no BPF object", linker.path.display());
    }
    fs::write(stamp(), identity(toolchain, linker)).context("remembering the proof")
}

/// An ELF file for machine 247, which is `EM_BPF` (linux/elf-em.h), little-endian.
fn is_bpf_object(object: &[u8]) -> bool {
    object.starts_with(b"\x7fELF") && object.get(18..20) == Some(&247_u16.to_le_bytes())
}

/// The file that holds what was proven last; losing it costs one more proof.
fn stamp() -> PathBuf {
    process::target_dir().join("xtask/linked-with")
}

/// What makes this pair the one that was proven.
fn identity(toolchain: &Toolchain, linker: &Linker) -> String {
    let built = |path: &Path| {
        let file = fs::metadata(path).ok();
        (file.as_ref().map(fs::Metadata::len), file.and_then(|file| file.modified().ok()))
    };
    let rustc = toolchain.program("rustc");
    format!("{:?}", (&toolchain.root, &toolchain.compiler, built(&rustc), &linker.path, built(&linker.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_objects_are_told_from_others() {
        let mut object = [0_u8; 64];
        object[..4].copy_from_slice(b"\x7fELF");
        assert!(!is_bpf_object(&object));
        object[18] = 247;
        assert!(is_bpf_object(&object));
        assert!(!is_bpf_object(&object[..19]));
        assert!(!is_bpf_object(b"BC\xc0\xde"));
    }
}
