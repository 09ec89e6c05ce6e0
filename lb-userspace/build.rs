//! Builds the kernel object and leaves it as `lb-xdp` in `OUT_DIR`, where the agent embeds it from.
//!
//! Cargo cannot yet depend on a binary for another target (artifact dependencies are unstable), and `aya-build` fixes
//! the compiler's flags without `target-cpu`, which the atomic instructions need; so this runs cargo itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "set-up uses more of the search than a build does")]
mod toolchain;

use toolchain::KernelBuild;

/// The kernel shell's sources and what they are built with, relative to the workspace.
const INPUTS: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "lb-userspace/build.rs",
    "xtask/src/toolchain.rs",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the object and copies it.
fn build() -> Result<(), String> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for input in INPUTS {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    let (toolchain, linker) = toolchain::choose(&toolchain::installed(), &toolchain::linkers()).ok_or(
        "The kernel program cannot be built: it needs a Rust toolchain with the component rust-src and a bpf-linker \
         whose LLVM is not older than that compiler's, and this machine does not have both. `cargo xtask setup` \
         finds or installs them; `cargo xtask setup --check` only says what is missing.",
    )?;
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let build = KernelBuild {
        toolchain: &toolchain,
        linker: &linker,
        arch: &variable("CARGO_CFG_TARGET_ARCH")?,
        big_endian: variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
        target_dir: &out_dir.join("kernel"),
    };
    let mut cargo = build.cargo("build");
    cargo.args(["--package", "lb-ebpf", "--bin", "lb-xdp", "--features", "kernel", "--profile", "bpf"]);
    run(cargo.arg("--quiet").current_dir(&workspace))?;
    let object = build.target_dir.join(build.target()).join("bpf/lb-xdp");
    copy_if_changed(&object, &out_dir.join("lb-xdp"))
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; cargo sets it for build scripts"))
}

/// Runs cargo; its warnings become the build's, its errors the failure.
fn run(cargo: &mut Command) -> Result<(), String> {
    let output = cargo
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", cargo.get_program().display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "building the kernel program failed ({}):\n{cargo:?}\n{messages}",
            output.status
        ));
    }
    for line in messages.lines() {
        println!("cargo:warning={line}");
    }
    Ok(())
}

/// Copies the object unless it is the same, so that an edit without effect does not compile the agent again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<(), String> {
    let object = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == object) {
        return Ok(());
    }
    fs::write(to, object).map_err(|error| format!("{}: {error}", to.display()))
}
