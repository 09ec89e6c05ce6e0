//! The programs of the host that demo and tests use, and the packages of Debian and Ubuntu that bring them.
//!
//! A thing counts as there when its *file* is there, wherever it came from: a user's own web server or database is
//! used as it is, and never replaced.

use std::{fs, path::Path};

/// Something that demo or tests need.
#[derive(Debug)]
pub struct Need {
    /// What it is for, in words for the user.
    pub purpose: &'static str,
    /// Any of these files shows that it is there. A `*` that ends a part of a path stands for the rest of a name.
    pub shown_by: &'static [&'static str],
    /// Package names, several of one set separated by spaces; the first set that the distribution has is installed.
    pub packages: &'static [&'static str],
}

/// What demo and tests need of the host.
#[rustfmt::skip]
pub const NEEDS: &[Need] = &[
    need("hosts in network namespaces (ip)", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"], &["iproute2"]),
    need("commands inside of a host (nsenter)", &["/usr/bin/nsenter"], &["util-linux"]),
    need("offloads and driver counters (ethtool)", &["/usr/sbin/ethtool", "/sbin/ethtool"], &["ethtool"]),
    need("reachability (ping)", &["/usr/bin/ping", "/bin/ping"], &["iputils-ping"]),
    // Ubuntu had it only among its kernel tools up to 24.04.
    need("a look at loaded programs (bpftool)", &["/usr/sbin/bpftool", "/usr/bin/bpftool", "/usr/local/sbin/bpftool"],
        &["bpftool", "linux-tools-common linux-tools-generic"]),
    need("the web server of PHP nodes (nginx)", &["/usr/sbin/nginx", "/usr/bin/nginx"], &["nginx-light", "nginx"]),
    need("PHP nodes (php-fpm)", &["/usr/sbin/php-fpm*"], &["php-fpm"]),
    need("PHP on the command line (php)", &["/usr/bin/php"], &["php-cli"]),
    need("MySQL in PHP (mysqli)", &["/usr/lib/php/*/mysqli.so"], &["php-mysql"]),
    need("database nodes (mariadbd)", &["/usr/sbin/mariadbd", "/usr/bin/mariadbd"], &["mariadb-server"]),
    need("the cluster's replication (Galera)", &["/usr/lib/galera/libgalera_smm.so"], &["galera-4"]),
    need("database clients (mariadb)", &["/usr/bin/mariadb"], &["mariadb-client"]),
    need("state transfer between database nodes (rsync)", &["/usr/bin/rsync"], &["rsync"]),
    need("a DNS server (dnsmasq)", &["/usr/sbin/dnsmasq"], &["dnsmasq-base"]),
    need("containers (dockerd)", &["/usr/sbin/dockerd", "/usr/bin/dockerd"], &["docker.io"]),
    need("what is in the tests' containers (busybox)", &["/usr/bin/busybox", "/bin/busybox"], &["busybox-static", "busybox"]),
    need("HTTP load (wrk)", &["/usr/bin/wrk", "/usr/local/bin/wrk"], &["wrk"]),
];

/// A line of the table.
const fn need(
    purpose: &'static str,
    shown_by: &'static [&'static str],
    packages: &'static [&'static str],
) -> Need {
    Need { purpose, shown_by, packages }
}

/// The needs that the file system below `root` does not fill.
pub fn missing(root: &Path) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !need.shown_by.iter().any(|pattern| exists(root, pattern))).collect()
}

/// Whether a file below `root` matches an absolute pattern of [`Need::shown_by`].
pub fn exists(root: &Path, pattern: &str) -> bool {
    let (part, rest) = pattern.trim_start_matches('/').split_once('/').unwrap_or((pattern, ""));
    let part = part.trim_start_matches('/');
    let Some(start) = part.strip_suffix('*') else {
        let path = root.join(part);
        return if rest.is_empty() { path.exists() } else { exists(&path, rest) };
    };
    fs::read_dir(root).into_iter().flatten().flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with(start)
            && (rest.is_empty() || exists(&entry.path(), rest))
    })
}

/// The packages to install for `need` where `available` says what the distribution has; `None` where it has no
/// complete set.
pub fn choose(need: &Need, available: impl Fn(&str) -> bool) -> Option<Vec<&'static str>> {
    need.packages
        .iter()
        .map(|set| set.split(' ').collect::<Vec<_>>())
        .find(|set| set.iter().all(|package| available(package)))
}

/// Reads `apt-cache policy NAME…`: the packages that have a candidate.
pub fn parse_candidates(policy: &str) -> Vec<&str> {
    let mut package = None;
    let mut found = Vec::new();
    for line in policy.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            package = Some(name);
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            found.extend(package);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_purpose(part: &str) -> &'static Need {
        NEEDS.iter().find(|need| need.purpose.contains(part)).unwrap()
    }

    #[test]
    fn first_complete_set_of_the_distribution_is_chosen() {
        let debian = ["bpftool", "nginx-light", "nginx"];
        let ubuntu = ["linux-tools-common", "linux-tools-generic", "nginx"];
        let half = ["linux-tools-common"];
        let table = [
            ("bpftool", &debian[..], Some(vec!["bpftool"])),
            ("bpftool", &ubuntu[..], Some(vec!["linux-tools-common", "linux-tools-generic"])),
            ("bpftool", &half[..], None),
            ("(nginx)", &debian[..], Some(vec!["nginx-light"])),
            ("(nginx)", &ubuntu[..], Some(vec!["nginx"])),
        ];
        for (purpose, has, want) in table {
            assert_eq!(choose(by_purpose(purpose), |name| has.contains(&name)), want, "{purpose} of {has:?}");
        }
    }

    #[test]
    fn candidates_are_the_packages_that_apt_can_install() {
        let policy = "wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3\n  Version table:\n     4.1.0-3 500\n\
                      nothing:\n  Installed: (none)\n  Candidate: (none)\nrsync:\n  Candidate: 3.2.7\n";
        assert_eq!(parse_candidates(policy), ["wrk", "rsync"]);
    }

    #[test]
    fn files_are_found_by_pattern() {
        let root = std::env::temp_dir().join(format!("lb-xtask-packages-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        fs::create_dir_all(root.join("usr/lib/php/20220829")).unwrap();
        fs::write(root.join("usr/sbin/php-fpm8.2"), "").unwrap();
        fs::write(root.join("usr/lib/php/20220829/mysqli.so"), "").unwrap();
        let table = [
            ("/usr/sbin/php-fpm*", true),
            ("/usr/lib/php/*/mysqli.so", true),
            ("/usr/lib/php/*/pdo.so", false),
            ("/usr/sbin/nginx*", false),
            ("/usr/sbin/php-fpm8.2", true),
            ("/usr/sbin/nginx", false),
            ("/opt/*/x", false),
        ];
        let got = table.map(|(pattern, _)| (pattern, exists(&root, pattern)));
        let purposes: Vec<_> = missing(&root).iter().map(|need| need.purpose).collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(got, table);
        assert_eq!(purposes.len(), NEEDS.len() - 2);
        assert!(!purposes.contains(&"PHP nodes (php-fpm)"));
    }
}
