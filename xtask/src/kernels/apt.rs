//! apt with a state of its own in the target directory: other suites than the host's, and nothing of the host's
//! packages, lists or caches is read or changed. It needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process;

/// Suites of Debian that have kernels or tools; `true`: from the security archive.
const SUITES: [(&str, bool); 5] = [
    ("bookworm", false),
    ("bookworm-security", true),
    ("trixie", false),
    ("trixie-security", true),
    ("trixie-backports", false),
];

/// The suite that the tools come from, with all that they depend on.
const TOOLS_SUITE: &str = "trixie";

/// Debian's keys, where the package debian-archive-keyring puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file in an unpacked tree that names its packages.
const CONTENTS: &str = ".packages";

/// The private state.
pub struct Apt {
    folder: PathBuf,
}

/// Where Debian's packages come from: the main archive and, where there is one, that of security updates.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The main archive.
    pub main: String,
    /// The security updates.
    pub security: Option<String>,
}

impl Apt {
    /// A state below `folder`, with the lists that are there, or fresh ones if there are none or `update` says so.
    pub fn new(folder: &Path, mirror: Option<String>, update: bool) -> Result<Self> {
        let apt = Self { folder: folder.to_owned() };
        if update || mirror.is_some() || !apt.lists().is_dir() {
            let mirror = match mirror {
                Some(main) => Mirror { main, security: None },
                None => hosts_mirror()?,
            };
            fs::create_dir_all(folder)?;
            fs::write(folder.join("sources.list"), sources(&mirror, Path::new(KEYRING).exists()))?;
            fs::write(folder.join("apt.conf"), settings(folder))?;
            apt.update()?;
        }
        Ok(apt)
    }

    fn lists(&self) -> PathBuf {
        self.folder.join("lists")
    }

    /// Asks the mirror for its packages.
    fn update(&self) -> Result<()> {
        // An interrupted update leaves lists that are not whole, so they appear under their name when they are.
        let unfinished = self.folder.join("lists.new");
        fs::create_dir_all(unfinished.join("partial"))?;
        let mut update = self.command("apt-get");
        update.arg("-o").arg(format!("Dir::State::Lists={}", unfinished.display()));
        update.args(["update", "-qq", "-o", "APT::Update::Error-Mode=any"]);
        process::run("asking the mirror for its packages", &mut update)?;
        let lists = self.lists();
        if lists.exists() {
            fs::remove_dir_all(&lists)?;
        }
        fs::rename(unfinished, lists)?;
        Ok(())
    }

    /// A program of apt that works in the private state.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Read after the host's own settings, so it has the last word (apt.conf(5)).
        command.arg("-c").arg(self.folder.join("apt.conf"));
        command
    }

    /// The names of all packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = self.command("apt-cache");
        let output = names.args(["pkgnames", prefix]).output().context("apt-cache does not start")?;
        if !output.status.success() {
            bail!("{}: {}", process::shown(&names), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Unpacks these packages into `tree`, unless they are there already.
    pub fn unpack(&self, tree: &Path, why: &str, packages: &[&str]) -> Result<()> {
        self.fill(tree, packages, |archives| {
            let mut download = self.command("apt-get");
            download.args(["download", "-qq"]).args(packages).current_dir(archives);
            process::run(why, &mut download)
        })
    }

    /// The same with all that they depend on, down to the C library, so that nothing depends on the host's.
    pub fn unpack_with_dependencies(&self, tree: &Path, why: &str, packages: &[&str]) -> Result<()> {
        self.fill(tree, packages, |archives| {
            fs::create_dir_all(archives.join("partial"))?;
            let mut download = self.command("apt-get");
            download.arg("-o").arg(format!("Dir::Cache::Archives={}", archives.display()));
            download.args(["install", "-y", "-qq", "--download-only", "--no-install-recommends"]);
            process::run(why, download.args(["-t", TOOLS_SUITE]).args(packages))
        })
    }

    /// Downloads into a folder and unpacks what is there then. The tree appears under its name when it is whole.
    fn fill(&self, tree: &Path, packages: &[&str], download: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let list = packages.join("\n");
        if fs::read_to_string(tree.join(CONTENTS)).is_ok_and(|found| found == list) {
            return Ok(());
        }
        let (archives, unfinished) = (self.folder.join("archives"), tree.with_added_extension("new"));
        for folder in [tree, &archives, &unfinished] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        for folder in [&archives, &unfinished] {
            fs::create_dir_all(folder)?;
        }
        if let Err(error) = download(&archives) {
            // The mirror may have moved on since the lists were made.
            println!("   {error:#}; once more with new lists");
            self.update()?;
            download(&archives)?;
        }
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            if archive.extension().is_none_or(|extension| extension != "deb") {
                continue;
            }
            let status = Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unfinished).status()?;
            if !status.success() {
                bail!("{} cannot be unpacked ({status})", archive.display());
            }
        }
        fs::write(unfinished.join(CONTENTS), list)?;
        fs::remove_dir_all(&archives)?;
        fs::rename(unfinished, tree)?;
        Ok(())
    }
}

/// The settings that keep apt within `folder` (apt.conf(5)).
fn settings(folder: &Path) -> String {
    let own = |name: &str| folder.join(name).display().to_string();
    let nothing = || "/dev/null".to_owned();
    [
        ("Dir::Etc::SourceList", own("sources.list")),
        ("Dir::Etc::SourceParts", nothing()),
        ("Dir::Etc::Preferences", nothing()),
        ("Dir::Etc::PreferencesParts", nothing()),
        ("Dir::State::Lists", own("lists")),
        ("Dir::State::Status", nothing()),
        ("Dir::State::Extended_States", own("extended_states")),
        ("Dir::Cache", own("cache")),
        // The user `_apt` may not enter these folders.
        ("APT::Sandbox::User", "root".to_owned()),
        // Nothing of the host's is touched, so none of its locks is needed.
        ("Debug::NoLocking", "true".to_owned()),
    ]
    .iter()
    .flat_map(|(name, value)| [*name, " \"", value, "\";\n"])
    .collect()
}

/// The text of a `sources.list` (sources.list(5)).
fn sources(mirror: &Mirror, keyring: bool) -> String {
    let options = if keyring { format!("[signed-by={KEYRING}] ") } else { String::new() };
    SUITES
        .iter()
        .filter_map(|(suite, security)| {
            let archive = if *security { mirror.security.as_ref()? } else { &mirror.main };
            Some(format!("deb {options}{archive} {suite} main\n"))
        })
        .collect()
}

/// The mirror of Debian that the host itself uses.
fn hosts_mirror() -> Result<Mirror> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let output =
        targets.output().context("apt-get does not start; other kernels come from Debian's packages")?;
    mirror_among(&String::from_utf8_lossy(&output.stdout)).context(
        "none of the sources of this host's apt is a mirror of Debian; name one by --mirror (its keys come with the \
         package debian-archive-keyring)",
    )
}

/// The archives of Debian among the URIs of apt's sources, one a line.
fn mirror_among(uris: &str) -> Option<Mirror> {
    let ending = |end: &str| uris.lines().map(|uri| uri.trim_end_matches('/')).find(|uri| uri.ends_with(end));
    Some(Mirror {
        main: ending("/debian")?.to_owned(),
        security: ending("/debian-security").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_the_hosts_own() {
        let mirror = |main: &str, security: Option<&str>| {
            Some(Mirror { main: main.to_owned(), security: security.map(str::to_owned) })
        };
        let table = [
            (
                "http://a.example/debian/\nhttp://a.example/debian/\nhttp://s.example/debian-security/\n",
                mirror("http://a.example/debian", Some("http://s.example/debian-security")),
            ),
            (
                "https://other.example/apt/\nhttp://b.example/pub/debian\n",
                mirror("http://b.example/pub/debian", None),
            ),
            ("http://c.example/ubuntu/\n", None),
            ("", None),
        ];
        for (uris, want) in table {
            assert_eq!(mirror_among(uris), want, "{uris:?}");
        }
    }

    #[test]
    fn settings_are_in_apts_own_form() {
        let text = settings(Path::new("/t/apt"));
        assert!(text.contains("Dir::State::Lists \"/t/apt/lists\";\n"), "{text}");
        assert!(text.lines().all(|line| line.ends_with("\";")), "{text}");
    }

    #[test]
    fn security_suites_come_from_the_security_archive_or_not_at_all() {
        let mut mirror = Mirror { main: "M".to_owned(), security: Some("S".to_owned()) };
        let text = sources(&mirror, true);
        assert_eq!(text.lines().count(), SUITES.len());
        assert!(text.contains(&format!("deb [signed-by={KEYRING}] S trixie-security main\n")), "{text}");
        mirror.security = None;
        assert_eq!(
            sources(&mirror, false),
            "deb M bookworm main\ndeb M trixie main\ndeb M trixie-backports main\n"
        );
    }
}
