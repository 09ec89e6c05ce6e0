//! Tests that cannot run on a machine say so in one line of a fixed form, which `cargo xtask test` collects.

use std::fs;
use std::path::{Path, PathBuf};

/// Something that a test needs and a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root with the capabilities to make namespaces and network devices.
    Lab,
    /// The capability to load BPF programs, and a kernel with its own types (BTF).
    Bpf,
    /// A program on PATH or in /usr/sbin.
    Program(&'static str),
    /// nginx, PHP-FPM and its `MySQL` extension.
    Php,
    /// `MariaDB` with Galera.
    Galera,
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// True if the test must return at once; the line `SKIPPED: <test>: <reason>` has been printed then.
///
/// ```no_run
/// # use lb_tests::lab::skip::{self, Need};
/// fn hosts_ping_each_other() {
///     if skip::cannot_run("hosts_ping_each_other", &[Need::Lab]) {
///         return;
///     }
/// }
/// ```
#[must_use]
pub fn cannot_run(test: &str, needs: &[Need]) -> bool {
    match needs.iter().find_map(|need| missing(*need)) {
        Some(reason) => {
            println!("SKIPPED: {test}: {reason}");
            true
        }
        None => false,
    }
}

/// The gate of tests that load BPF programs in a lab: true if the test must return at once.
#[must_use]
pub fn require_root_and_bpf(test: &str) -> bool {
    cannot_run(test, &[Need::Lab, Need::Bpf])
}

/// Why a need is not met, or nothing if it is.
pub fn missing(need: Need) -> Option<String> {
    match need {
        Need::Lab => missing_for_lab(),
        Need::Bpf => missing_for_bpf(),
        Need::Program(program) => {
            find_program(program).is_none().then(|| format!("{program} is not installed"))
        }
        Need::Php => {
            if php_fpm().is_none() {
                return Some("PHP-FPM is not installed".to_owned());
            }
            missing(Need::Program("nginx"))
        }
        Need::Galera => {
            if galera_library().is_none() {
                return Some("libgalera_smm.so is not installed".to_owned());
            }
            ["mariadbd", "mariadb", "mariadb-install-db"]
                .into_iter()
                .find_map(|program| missing(Need::Program(program)))
        }
    }
}

fn missing_for_lab() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    for (capability, name) in
        [(CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_NET_RAW, "CAP_NET_RAW")]
    {
        if !has_capability(capability) {
            return Some(format!("needs {name} for network namespaces"));
        }
    }
    ["unshare", "ip", "ethtool"].into_iter().find_map(|program| missing(Need::Program(program)))
}

fn missing_for_bpf() -> Option<String> {
    if !has_capability(CAP_BPF) && !has_capability(CAP_SYS_ADMIN) {
        return Some("needs CAP_BPF".to_owned());
    }
    let types = Path::new("/sys/kernel/btf/vmlinux");
    (!types.exists()).then(|| "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)".to_owned())
}

fn has_capability(capability: u32) -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|effective| effective & (1 << capability) != 0)
}

/// A program on PATH or among the system's administration programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// The newest `php-fpm` of the system; Debian puts the version into the program's name.
pub fn php_fpm() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/sbin")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm")))
        .collect();
    found.sort();
    found.pop()
}

/// The Galera library, where Debian, Ubuntu and others put it.
pub fn galera_library() -> Option<PathBuf> {
    let multiarch = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("galera"));
    ["/usr/lib/galera", "/usr/lib/galera-4", "/usr/lib", "/usr/lib64/galera-4", "/usr/lib64/galera"]
        .map(PathBuf::from)
        .into_iter()
        .chain(multiarch)
        .map(|directory| directory.join("libgalera_smm.so"))
        .find(|file| file.is_file())
}
