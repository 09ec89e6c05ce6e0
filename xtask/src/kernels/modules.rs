//! The kernel modules that the tests need, with those that they need themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::tools::{BUSYBOX, Tools};

/// What the lab is made of; a kernel that has one built in has no module of that name.
const WANTED: [&str; 2] = ["veth", "bridge"];

/// Copies the modules into `folder`, uncompressed, and writes their names into `folder/order`, in the order in which
/// they load.
pub fn collect(kernel: &Path, tools: &Tools, folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    find(kernel, &mut files)?;
    let mut order = Vec::new();
    for name in WANTED {
        load(name, &files, tools, folder, &mut order)?;
    }
    let lines: String = order.iter().flat_map(|name| [name.as_str(), ".ko\n"]).collect();
    fs::write(folder.join("order"), lines)?;
    Ok(())
}

/// Adds a module after those that it depends on.
fn load(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    tools: &Tools,
    folder: &Path,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(file) = files.get(name).filter(|_| !order.iter().any(|loaded| loaded == name)) else {
        return Ok(());
    };
    let module = read(file, tools)?;
    for needed in dependencies(&module) {
        load(&needed, files, tools, folder, order)?;
    }
    fs::write(folder.join(format!("{name}.ko")), module)?;
    order.push(name.to_owned());
    Ok(())
}

/// All modules below `folder` by their names, in which the kernel does not tell `-` from `_`.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some((name, "" | ".xz")) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

/// A module's bytes.
fn read(file: &Path, tools: &Tools) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
    }
    let output = Command::new(tools.file(BUSYBOX)).args(["unxz", "-c"]).arg(file).output()?;
    if !output.status.success() {
        bail!("{} cannot be unpacked: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The modules that one needs, from its section `.modinfo`: strings of the form `depends=stp,llc`, each ended by a
/// zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_modules_own_text() {
        let table: [(&[u8], &[&str]); 5] = [
            (b"\0license=GPL\0depends=stp,llc\0retpoline=Y\0", &["stp", "llc"]),
            (b"ELF\0depends=\0intree=Y\0", &[]),
            (b"\0softdepends=x\0depends=ip-tunnel\0", &["ip_tunnel"]),
            (b"\0depends=llc", &["llc"]),
            (b"", &[]),
        ];
        for (module, want) in table {
            assert_eq!(dependencies(module), want, "{}", String::from_utf8_lossy(module));
        }
    }
}
