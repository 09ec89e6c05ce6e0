//! Kernel releases, read from the names of Debian's packages.

use std::collections::BTreeSet;

/// A kernel that can be had: its release and the packages that bring image and modules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The numbers in its name; releases are ordered by them.
    numbers: Vec<u32>,
    /// What `uname -r` says, without the flavour: `6.1.0-56`, `6.12.117+deb12`.
    pub name: String,
    /// The packages.
    pub packages: Vec<String>,
}

/// Which kernel is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest of all.
    Newest,
    /// The newest whose version begins with these numbers.
    Version(Vec<u32>),
}

impl std::str::FromStr for Wanted {
    type Err = String;

    /// Reads `newest`, or numbers as in `6.1`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        numbers.map(Self::Version).map_err(|_| "write `newest`, or a version such as `6.1`".to_owned())
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newest => out.write_str("newest"),
            Self::Version(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                out.write_str(&numbers.join("."))
            }
        }
    }
}

/// The cloud kernels among `packages`, oldest first: small, and with all that a virtual machine needs.
///
/// Up to 6.18 one package holds image and modules. Since then `linux-image-…` is empty and depends on
/// `linux-binary-…` and `linux-modules-…`; where an archive has lost one of these, the kernel cannot be had.
pub fn releases<'a>(packages: impl Iterator<Item = &'a str>, architecture: &str) -> Vec<Release> {
    let flavour = format!("-cloud-{architecture}");
    let packages: BTreeSet<&str> = packages.filter(|package| package.ends_with(&flavour)).collect();
    let mut found: Vec<Release> = packages
        .iter()
        .filter_map(|package| package.strip_prefix("linux-image-")?.strip_suffix(flavour.as_str()))
        .filter(|name| {
            name.split('.').nth(2).is_some() && name.starts_with(|first: char| first.is_ascii_digit())
        })
        .filter_map(|name| {
            let package = |kind: &str| format!("linux-{kind}-{name}{flavour}");
            let halves = [package("binary"), package("modules")];
            let there = halves.each_ref().map(|half| packages.contains(half.as_str()));
            let packages = match there {
                [true, true] => halves.to_vec(),
                [false, false] => vec![package("image")],
                _ => return None,
            };
            Some(Release { numbers: numbers(name), name: name.to_owned(), packages })
        })
        .collect();
    found.sort();
    found
}

/// The newest release that is `wanted`.
pub fn choose<'a>(releases: &'a [Release], wanted: &Wanted) -> Option<&'a Release> {
    releases.iter().rev().find(|release| match wanted {
        Wanted::Newest => true,
        Wanted::Version(numbers) => release.numbers.starts_with(numbers),
    })
}

/// The numbers of a name: 6, 1, 0, 56 of `6.1.0-56`.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &[&str] = &[
        "linux-image-cloud-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-unsigned",
        "linux-image-6.1.0-56-amd64",
        "linux-image-6.12.90+deb12-cloud-amd64",
        "linux-image-6.12.90+deb12.1-cloud-amd64",
        "linux-image-6.18.9+deb13-cloud-amd64",
        "linux-image-6.18.12+deb13-cloud-amd64",
        "linux-headers-6.18.12+deb13-cloud-amd64",
        "linux-image-7.1.13+deb13-cloud-amd64",
        "linux-binary-7.1.13+deb13-cloud-amd64",
        "linux-image-7.2.9+deb13-cloud-amd64",
        "linux-binary-7.2.9+deb13-cloud-amd64",
        "linux-modules-7.2.9+deb13-cloud-amd64",
        "linux-binary-unsigned-7.2.9+deb13-cloud-amd64",
        "linux-image-7.2.9+deb13-cloud-arm64",
    ];

    #[test]
    fn newest_release_of_a_version_is_chosen() {
        let releases = releases(PACKAGES.iter().copied(), "amd64");
        let table = [
            ("6.1", Some("6.1.0-56")),
            ("6", Some("6.18.12+deb13")),
            ("6.12", Some("6.12.90+deb12.1")),
            ("6.18.9", Some("6.18.9+deb13")),
            ("newest", Some("7.2.9+deb13")),
            // Its modules are not there.
            ("7.1", None),
            ("5.10", None),
        ];
        for (wanted, want) in table {
            let wanted: Wanted = wanted.parse().unwrap();
            let got = choose(&releases, &wanted).map(|release| release.name.as_str());
            assert_eq!(got, want, "{wanted}");
        }
    }

    #[test]
    fn packages_are_those_that_hold_image_and_modules() {
        let releases = releases(PACKAGES.iter().copied(), "amd64");
        let packages = |wanted: &str| choose(&releases, &wanted.parse().unwrap()).unwrap().packages.clone();
        assert_eq!(packages("6.1"), ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(
            packages("7.2"),
            ["linux-binary-7.2.9+deb13-cloud-amd64", "linux-modules-7.2.9+deb13-cloud-amd64"]
        );
    }

    #[test]
    fn wanted_version_is_numbers_or_newest() {
        for text in ["newest", "6.1", "6", "7.2.9"] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), text);
        }
        for text in ["", "6.", "6.x", "latest", "v6.1", "-1"] {
            assert!(text.parse::<Wanted>().is_err(), "{text:?}");
        }
    }
}
