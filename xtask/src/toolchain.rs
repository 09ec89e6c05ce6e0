//! Finds what turns the kernel shell into a BPF object: a compiler that has its own sources, and a linker for it.
//!
//! A BPF target has no prebuilt `core`, so the compiler builds one from `rust-src` (`-Z build-std=core`, let through
//! by `RUSTC_BOOTSTRAP=1` on any channel). The linker reads the compiler's LLVM bitcode, and LLVM promises to read
//! bitcode of its own and older versions only: `bpf-linker` must not have an older LLVM than the compiler.
//!
//! Nothing is remembered between runs. `cargo xtask setup` and the agent's build script include this same file and
//! look at the machine afresh, so they cannot come to different answers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest compiler that builds this workspace, as `rust-version` in Cargo.toml says (major, minor, patch).
pub const OLDEST_RUSTC: Version = (1, 95, 0);

/// A release number: major, minor, patch.
pub type Version = (u32, u32, u32);

/// What `rustc -vV` says of a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Its release, without `-nightly` and the like.
    pub release: Version,
    /// The major version of the LLVM that it was built with.
    pub llvm: u32,
}

/// An installed Rust toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// What rustup calls it, or the place where it was found.
    pub name: String,
    /// The folder that has `bin/rustc` and `bin/cargo`.
    pub root: PathBuf,
    /// Its compiler.
    pub compiler: Compiler,
    /// Whether the sources of `core` are there.
    pub has_source: bool,
}

/// An installed `bpf-linker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// The major version of its LLVM; `None` where the program does not show it.
    pub llvm: Option<u32>,
}

impl Toolchain {
    /// `bin/NAME` of this toolchain.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }
}

impl Linker {
    /// Whether this linker reads what `compiler` writes; a linker that does not show its version gets the doubt.
    pub fn reads(&self, compiler: &Compiler) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= compiler.llvm)
    }
}

/// Reads the output of `rustc -vV`.
pub fn parse_compiler(verbose_version: &str) -> Option<Compiler> {
    let field = |name: &str| verbose_version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(Compiler {
        release: parse_version(field("release:")?)?,
        llvm: field("LLVM version:")?.split('.').next()?.parse().ok()?,
    })
}

/// Reads `1.97.0-nightly` as (1, 97, 0).
fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('-').next()?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Reads `rustup toolchain list -v`: a name, perhaps `(active, default)`, and a folder on each line.
pub fn parse_toolchain_list(list: &str) -> Vec<(String, PathBuf)> {
    list.lines()
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let folder = line.find(" /").map(|at| line[at..].trim()).or_else(|| line.split('\t').nth(1))?;
            Some((name.to_owned(), PathBuf::from(folder)))
        })
        .collect()
}

/// The toolchains of this machine that have both `rustc` and `cargo`, with or without sources.
pub fn installed() -> Vec<Toolchain> {
    let mut places = Command::new("rustup")
        .args(["toolchain", "list", "-v"])
        .output()
        .map(|output| parse_toolchain_list(&String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default();
    // A distribution's compiler, or one that was unpacked by hand, is not in rustup's list.
    places.extend(["/usr", "/usr/local"].map(|root| (root.to_owned(), PathBuf::from(root))));
    let on_path = Command::new("rustc").args(["--print", "sysroot"]).output();
    if let Some(sysroot) = on_path.ok().and_then(|output| String::from_utf8(output.stdout).ok()) {
        places.push(("rustc on PATH".to_owned(), PathBuf::from(sysroot.trim())));
    }
    let mut found: Vec<Toolchain> = Vec::new();
    for (name, root) in places {
        let Ok(root) = root.canonicalize() else { continue };
        if found.iter().all(|known| known.root != root) {
            found.extend(inspect(name, root));
        }
    }
    found
}

/// Asks the compiler below `root` for its version.
fn inspect(name: String, root: PathBuf) -> Option<Toolchain> {
    let bin = root.join("bin");
    if !bin.join("cargo").exists() {
        return None;
    }
    let output = Command::new(bin.join("rustc")).arg("-vV").output().ok()?;
    let compiler = parse_compiler(&String::from_utf8_lossy(&output.stdout))?;
    let has_source = root.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
    Some(Toolchain { name, root, compiler, has_source })
}

/// Every `bpf-linker` in cargo's own folder, in `~/.local/bin` and on PATH.
pub fn linkers() -> Vec<Linker> {
    let mut folders: Vec<PathBuf> = cargo_bin().into_iter().collect();
    folders.extend(env::home_dir().map(|home| home.join(".local/bin")));
    folders.extend(env::var_os("PATH").iter().flat_map(|path| env::split_paths(path).collect::<Vec<_>>()));
    let mut found: Vec<Linker> = Vec::new();
    for folder in folders {
        let Ok(path) = folder.join("bpf-linker").canonicalize() else { continue };
        if found.iter().all(|known| known.path != path) {
            let llvm = fs::read(&path).ok().and_then(|program| llvm_of(&program));
            found.push(Linker { path, llvm });
        }
    }
    found
}

/// The folder where `cargo install` puts programs.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).map(|home| home.join("bin"))
}

/// The major version of the LLVM in a linker, read from the program itself because no option prints it.
///
/// A dynamic one names the library `libLLVM.so.22.1`; a static one holds the string `LLVM22.1.8` that LLVM's bitcode
/// writer puts into its identification block (llvm/lib/Bitcode/Writer/BitcodeWriter.cpp, `writeIdentificationBlock`).
pub fn llvm_of(program: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"LLVM";
    let mut rest = program;
    while let Some(at) = rest.iter().position(|byte| *byte == MARK[0]) {
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(MARK) {
            let after = after.strip_prefix(b".so.").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let ends_well = after.get(digits).is_some_and(|byte| matches!(byte, b'.' | b'\0'));
            let major = str::from_utf8(&after[..digits]).ok().and_then(|digits| digits.parse().ok());
            if let Some(major) = major.filter(|major| ends_well && (10..1000).contains(major)) {
                return Some(major);
            }
        }
        rest = &rest[1..];
    }
    None
}

/// The toolchain and the linker to build with: new enough, with sources, the linker reading what the compiler
/// writes; the newest compiler where there are several.
pub fn choose(toolchains: &[Toolchain], linkers: &[Linker]) -> Option<(Toolchain, Linker)> {
    with_source(toolchains).into_iter().find_map(|toolchain| {
        let linker = linkers.iter().find(|linker| linker.reads(&toolchain.compiler))?;
        Some((toolchain.clone(), linker.clone()))
    })
}

/// The toolchains that can build `core`, the newest first.
pub fn with_source(toolchains: &[Toolchain]) -> Vec<&Toolchain> {
    let mut usable: Vec<&Toolchain> = toolchains
        .iter()
        .filter(|toolchain| toolchain.has_source && toolchain.compiler.release >= OLDEST_RUSTC)
        .collect();
    usable.sort_by_key(|toolchain| std::cmp::Reverse(toolchain.compiler.release));
    usable
}

/// What a run of cargo for the BPF target needs beyond its subcommand.
pub struct KernelBuild<'a> {
    /// The compiler.
    pub toolchain: &'a Toolchain,
    /// The linker.
    pub linker: &'a Linker,
    /// The architecture whose kernel runs the program, as rustc spells it.
    pub arch: &'a str,
    /// Whether that architecture is big-endian.
    pub big_endian: bool,
    /// Where cargo builds; never a folder that another running cargo holds locked.
    pub target_dir: &'a Path,
}

impl KernelBuild<'_> {
    /// The target triple.
    pub fn target(&self) -> &'static str {
        if self.big_endian { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
    }

    /// The flags for rustc. `v3` brings the atomic instructions of the kernel's BPF instruction set that the port
    /// cells stand on; BTF is what map definitions and the verifier's messages are read from.
    fn flags(&self) -> String {
        let arch = if self.arch.starts_with("riscv64") { "riscv64" } else { self.arch };
        [
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            "-Ctarget-cpu=v3".to_owned(),
            "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            format!("-Clinker={}", self.linker.path.display()),
            "-Clink-arg=--btf".to_owned(),
        ]
        .join("\x1f")
    }

    /// `cargo SUBCOMMAND` for the BPF target, with `core` built from source, free of what an outer cargo, rustup or
    /// build script put into the environment for the host's build.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(self.toolchain.program("cargo"));
        cargo.args([subcommand, "-Zbuild-std=core", "--target", self.target()]);
        cargo.arg("--target-dir").arg(self.target_dir);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(describes_outer_build) {
                cargo.env_remove(&name);
            }
        }
        let bin = self.toolchain.root.join("bin");
        let path = env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path))) {
            cargo.env("PATH", path);
        }
        cargo
            .env("RUSTC", self.toolchain.program("rustc"))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags());
        cargo
    }
}

/// Whether a variable tells of the build around this one. The user's own settings of cargo (its home, network,
/// registries and jobs) stay.
pub fn describes_outer_build(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_PRIMARY_PACKAGE",
        "CLIPPY_ARGS",
        "OUT_DIR",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const PREFIXES: [&str; 9] = [
        "CARGO_BIN_",
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_CRATE_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(name: &str, release: Version, llvm: u32, has_source: bool) -> Toolchain {
        let root = PathBuf::from(format!("/toolchains/{name}"));
        Toolchain { name: name.to_owned(), root, compiler: Compiler { release, llvm }, has_source }
    }

    fn linker(name: &str, llvm: Option<u32>) -> Linker {
        Linker { path: PathBuf::from(format!("/bin/{name}")), llvm }
    }

    #[test]
    fn compiler_is_read_from_its_verbose_version() {
        let table = [
            ("rustc 1.95.0 (5 2026)\nrelease: 1.95.0\nLLVM version: 22.1.2\n", Some(((1, 95, 0), 22))),
            ("rustc\nhost: x\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n", Some(((1, 97, 0), 22))),
            ("rustc\nrelease: 1.96.0\n", None),
            ("release: soon\nLLVM version: 22.1.2\n", None),
            ("", None),
        ];
        for (text, want) in table {
            let got = parse_compiler(text).map(|compiler| (compiler.release, compiler.llvm));
            assert_eq!(got, want, "{text:?}");
        }
    }

    #[test]
    fn toolchain_list_gives_names_and_folders_with_or_without_marks() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /root/.rustup/toolchains/stable\n\
                    mine /usr\nold\t/home/a b/toolchains/old\nno installed toolchains\n";
        let want = [
            ("stable-x86_64-unknown-linux-gnu", "/root/.rustup/toolchains/stable"),
            ("mine", "/usr"),
            ("old", "/home/a b/toolchains/old"),
        ];
        let got = parse_toolchain_list(list);
        let got: Vec<_> = got.iter().map(|(name, root)| (name.as_str(), root.to_str().unwrap())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn linker_shows_its_llvm_whether_linked_dynamically_or_statically() {
        let table: [(&[u8], Option<u32>); 7] = [
            (b"..\0libLLVM.so.22.1\0..", Some(22)),
            (b"..\0libLLVM-19.so\0libLLVM-19.1\0", Some(19)),
            (b"LLVM IR\0LLVM23.1.0\0", Some(23)),
            (b"LLVM 22 builds also support", None),
            (b"LLVMContext\0LLLLVM21.1.8", Some(21)),
            (b"LLVM99999999999999.1", None),
            (b"", None),
        ];
        for (program, want) in table {
            assert_eq!(llvm_of(program), want, "{}", String::from_utf8_lossy(program));
        }
    }

    #[test]
    fn newest_compiler_that_the_linker_reads_is_chosen() {
        let stable = toolchain("stable", (1, 95, 0), 22, true);
        let bare = toolchain("bare", (1, 98, 0), 22, false);
        let debian = toolchain("/usr", (1, 96, 0), 22, true);
        let nightly = toolchain("nightly", (1, 99, 0), 23, true);
        let old = toolchain("old", (1, 94, 9), 20, true);
        let all = [stable, bare, debian, nightly, old.clone()];
        let table = [
            (&all[..], vec![linker("l22", Some(22))], Some(("/usr", "l22"))),
            (&all[..], vec![linker("l22", Some(22)), linker("l23", Some(23))], Some(("nightly", "l23"))),
            (&all[..], vec![linker("l", None)], Some(("nightly", "l"))),
            (&all[..], vec![linker("l21", Some(21))], None),
            (&all[..], vec![], None),
            (&[old][..], vec![linker("l23", Some(23))], None),
        ];
        for (toolchains, linkers, want) in table {
            let got = choose(toolchains, &linkers);
            let got = got.map(|(toolchain, linker)| (toolchain.name, linker.path));
            let want = want.map(|(name, path)| (name.to_owned(), PathBuf::from("/bin").join(path)));
            assert_eq!(got, want, "{linkers:?}");
        }
    }

    #[test]
    fn outer_build_is_told_from_the_users_settings() {
        for name in ["RUSTC", "CARGO", "CARGO_PKG_NAME", "CARGO_TARGET_DIR", "CARGO_CFG_UNIX", "RUSTFLAGS"] {
            assert!(describes_outer_build(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "PATH", "CARGO_MAKEFLAGS"]
        {
            assert!(!describes_outer_build(name), "{name}");
        }
    }
}
