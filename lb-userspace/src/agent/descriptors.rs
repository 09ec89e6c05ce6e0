//! How many files this process may have open: what its configuration needs at worst, when every probe waits for an answer
//! at the same time.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::probers::AT_ONCE;
use crate::config::{CheckKind, Config, Target};

/// Maps, programs, links, logs, sockets to the kernel, connections of operators and sources of discovery.
const OTHERS: u64 = 512;

/// Descriptors that a configuration may need at a time.
fn needed(config: &Config) -> u64 {
    let monitors: usize = config.clusters.iter().map(|cluster| cluster.nodes.len()).sum();
    // Sessions that stay; all others are bounded together.
    let sessions = config.services.iter().map(|service| match &service.target {
        Target::Backends { backends, check, .. } if matches!(check.kind, CheckKind::Mysql(_)) => {
            backends.len()
        }
        _ => 0,
    });
    OTHERS + (AT_ONCE + monitors + sessions.sum::<usize>()) as u64
}

/// Raises the soft limit to the hard one if the configuration may need more than the soft one allows; says so if the hard
/// one does not suffice either, and it sufficed for the configuration `before`.
pub(in crate::agent) fn allow(config: &Config, before: &Config) {
    let wanted = needed(config);
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return log::warn!("nobody says how many files may be open: {error}"),
    };
    if soft < wanted && soft < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => log::info!("{hard} files may be open instead of {soft}"),
            Err(error) => log::warn!("not more than {soft} files may be open: {error}"),
        }
    }
    let starts = before.services.is_empty() && before.clusters.is_empty();
    if hard < wanted && (starts || needed(before) <= hard) {
        log::warn!(
            "up to {wanted} files may have to be open at a time, and this process may open {hard}: probes may fail for \
             that; raise the limit (systemd: LimitNOFILE={wanted})"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SystemSecrets, parse};

    #[test]
    fn sessions_that_stay_need_a_descriptor_each_and_all_other_probes_a_bounded_number() {
        let backends: Vec<String> =
            (1..=200).map(|n| format!("{{ name = \"b{n}\", address = \"10.0.0.{n}:3306\" }}")).collect();
        let service = |check: &str| {
            let text = format!(
                "interfaces = [\"eth0\"]\n[[service]]\nname = \"s\"\naddress = \"203.0.113.1:80/tcp\"\n\
                 check = {{ {check} }}\nbackends = [{}]",
                backends.join(", ")
            );
            needed(&parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap())
        };
        let others = OTHERS + AT_ONCE as u64;
        assert_eq!(service("type = \"http\""), others);
        assert_eq!(service("type = \"mysql\", user = \"lb\", password-env = \"PATH\""), others + 200);
    }
}
