//! The virtual machine's file system: an archive in memory (Documentation/filesystems/ramfs-rootfs-initramfs.rst of the
//! kernel) with the test binaries, the few programs that they call, and the modules of network devices.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    modules,
    tools::{BUSYBOX, Tools},
};

/// Programs that tests call and that busybox does not stand in for.
const PROGRAMS: [&str; 3] = ["usr/bin/ip", "usr/bin/unshare", "usr/sbin/ethtool"];

/// Process 1.
const INIT: &str = include_str!("init.sh");

/// Where the old names of folders lead to.
const LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// What goes into the machine, besides its programs.
pub struct Contents<'a> {
    /// The agent, linked statically.
    pub agent: &'a Path,
    /// The test binaries with their names, linked statically.
    pub tests: &'a [(String, PathBuf)],
    /// The unpacked packages of the kernel.
    pub kernel: &'a Path,
}

/// Lays the file system out below `stage` and packs it into `archive`.
pub fn pack(contents: &Contents<'_>, tools: &Tools, stage: &Path, archive: &Path) -> Result<()> {
    if stage.exists() {
        fs::remove_dir_all(stage)?;
    }
    for folder in ["dev", "modules", "proc", "run", "sys", "tests", "tmp", "usr/bin", "usr/sbin", "var/lib"] {
        fs::create_dir_all(stage.join(folder))?;
    }
    for (name, target) in LINKS {
        symlink(target, stage.join(name))?;
    }
    copy(&tools.file(BUSYBOX), &stage.join(BUSYBOX))?;
    for program in PROGRAMS {
        copy(&tools.file(program), &stage.join(program))?;
        for library in tools.libraries(program)? {
            let inside = library.strip_prefix(tools.root()).context("a library outside of the tools")?;
            copy(&library, &stage.join(inside))?;
        }
    }
    copy(contents.agent, &stage.join("usr/bin/lb"))?;
    for (name, program) in contents.tests {
        copy(program, &stage.join("tests").join(name))?;
    }
    let init = stage.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    modules::collect(contents.kernel, tools, &stage.join("modules"))?;
    write_archive(tools, stage, archive)
}

/// Copies a file, following links, into a folder that is made for it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a folder")?)?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(())
}

/// Packs everything below `stage` in the format that the kernel unpacks.
fn write_archive(tools: &Tools, stage: &Path, archive: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(stage, Path::new(""), &mut names)?;
    let mut cpio = Command::new(tools.file(BUSYBOX))
        .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(stage)
        .stdin(Stdio::piped())
        .stdout(File::create(archive)?)
        .stderr(Stdio::null())
        .spawn()
        .context("busybox does not start")?;
    let mut input = cpio.stdin.take().context("busybox has no input")?;
    input.write_all(names.join("\n").as_bytes())?;
    drop(input);
    let status = cpio.wait()?;
    if !status.success() {
        bail!("packing the machine's file system ended with {status}");
    }
    Ok(())
}

/// The paths of everything below `root`, folders before what is in them.
fn list(root: &Path, inside: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(inside))? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        names.push(path.to_str().context("a name that is no UTF-8")?.to_owned());
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}
