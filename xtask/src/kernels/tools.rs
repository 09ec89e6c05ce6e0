//! The emulator and the programs for the machine inside, unpacked with all their libraries and run from there. Nothing
//! of it is installed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process;

use super::apt::Apt;

/// The emulator and its firmware, and what goes into the machine.
const PACKAGES: [&str; 6] =
    ["qemu-system-x86", "seabios", "busybox-static", "iproute2", "ethtool", "util-linux"];

/// Stands in for most programs of a system, and is linked statically.
pub const BUSYBOX: &str = "usr/bin/busybox";

/// The loader of their own C library.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Their libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A tree of unpacked packages.
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// The tools below `root`, downloaded if they are not there.
    pub fn get(apt: &Apt, root: &Path) -> Result<Self> {
        apt.unpack_with_dependencies(root, "downloading the emulator", &PACKAGES)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file by its path in its package.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// One of the programs with its own loader and libraries.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.file(LOADER));
        command.arg("--library-path").arg(self.file(LIBRARIES));
        command.arg(self.file(program));
        command
    }

    /// The libraries that a program loads, with the loader.
    pub fn libraries(&self, program: &str) -> Result<Vec<PathBuf>> {
        let mut list = Command::new(self.file(LOADER));
        list.arg("--library-path").arg(self.file(LIBRARIES)).arg("--list").arg(self.file(program));
        let output = list.output().context("the loader does not start")?;
        if !output.status.success() {
            bail!("{}: {}", process::shown(&list), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(parse_libraries(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The files in what a loader lists: `libc.so.6 => /lib/libc.so.6 (0x…)`.
fn parse_libraries(list: &str) -> Vec<PathBuf> {
    let files = list.lines().filter_map(|line| line.split_once(" => ")?.1.split_once(" (0x"));
    files.map(|(file, _)| PathBuf::from(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_files_with_the_loader_and_without_the_kernels_own() {
        let list = "\tlinux-vdso.so.1 (0x00007f7a1927b000)\n\
                    \tlibmnl.so.0 => /t/usr/lib/libmnl.so.0 (0x00007f7a190b3000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /t/usr/lib64/ld-linux-x86-64.so.2 (0x00007f7a1927d000)\n";
        let want = ["/t/usr/lib/libmnl.so.0", "/t/usr/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_libraries(list), want);
    }
}
