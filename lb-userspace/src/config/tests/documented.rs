//! README's reference has every key, and no other.

use std::fs;
use std::path::Path;

use crate::config::{backends, check, cluster, credentials, discover, limits, root, service};

/// The words of a text that could be keys.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '-').filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_key_is_in_the_reference_and_the_reference_names_no_other() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let reference = readme.split("## Configuration\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let reference = reference.expect("README has a section on the configuration");
    let known = [
        root::KEYS,
        root::API_KEYS,
        service::KEYS,
        service::TIMEOUT_KEYS,
        backends::BACKEND_KEYS,
        check::CHECK_KEYS,
        check::PORT_KEYS,
        check::HTTP_KEYS,
        check::HTTPS_KEYS,
        check::FPM_KEYS,
        check::LOAD_KEYS,
        check::FPM_LOAD_KEYS,
        check::AGENT_KEYS,
        check::MYSQL_LOAD_KEYS,
        credentials::LOGIN_KEYS,
        discover::DNS_KEYS,
        discover::DOCKER_KEYS,
        limits::RATE_KEYS,
        cluster::KEYS,
        cluster::MONITOR_KEYS,
        cluster::NODE_KEYS,
    ]
    .concat();
    let quoted: String = reference.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("\n");
    for key in &known {
        assert!(words(&quoted).contains(key), "{key} is not in the reference");
    }
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    for key in rows.flat_map(|row| row.split(", ")).map(|key| key.trim_matches('`')) {
        assert!(known.contains(&key), "{key} is no key");
    }
}
