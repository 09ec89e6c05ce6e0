//! What is written down, and which files are touched.

use std::os::unix::fs::PermissionsExt as _;

use super::{plan::Plan, *};
use crate::config::{Config, Target, parse};

struct Safe;

impl SecretSource for Safe {
    fn file(&self, path: &Path) -> io::Result<String> {
        assert_eq!(path, Path::new("/etc/lb/db.pw"));
        Ok("secret\n".to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn servers(text: &str) -> Vec<std::net::SocketAddr> {
    text.split_whitespace().map(|server| server.parse().unwrap()).collect()
}

fn plan(php: &str, nodes: &str) -> Plan {
    let (php, nodes) = (servers(php), servers(nodes));
    let at = |servers: &[std::net::SocketAddr], usual| {
        let version = servers.first()?.is_ipv4();
        let own = if version { "10.0.0.10" } else { "2001:db8::10" };
        Some(std::net::SocketAddr::new(own.parse().unwrap(), Plan::port(servers, usual)))
    };
    Plan {
        interfaces: vec!["eth0".to_owned(), "docker0".to_owned()],
        web: at(&php, 80),
        database: at(&nodes, 3306),
        php,
        nodes,
        seen: vec!["10.0.0.10".parse().unwrap(), "10.9.0.10".parse().unwrap()],
        missing: Vec::new(),
        warnings: Vec::new(),
    }
}

fn read(text: &str) -> Config {
    parse(text, "lb.toml", &Safe).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn whatever_the_servers_are_the_file_is_right_and_names_them() {
    for (php, nodes, listens) in [
        ("10.0.0.11:80 10.0.0.12:80", "", vec!["10.0.0.10:80/tcp"]),
        ("", "10.0.1.1:3306 10.0.1.2:3307", vec!["10.0.0.10:3306/tcp"]),
        ("10.0.0.11:9000", "10.0.1.1:3307", vec!["10.0.0.10:9000/tcp", "10.0.0.10:3307/tcp"]),
        ("10.0.0.11:8080 10.0.0.12:8081", "10.0.1.1:3306", vec!["10.0.0.10:80/tcp", "10.0.0.10:3306/tcp"]),
        ("[2001:db8::11]:80", "10.0.1.1:3306", vec!["[2001:db8::10]:80/tcp", "10.0.0.10:3306/tcp"]),
    ] {
        let text = text::file(&plan(php, nodes), Path::new("/etc/lb/db.pw"));
        let config = read(&text);
        let found: Vec<String> = config.services.iter().map(|service| service.listen.to_string()).collect();
        assert_eq!(
            (found, &*config.interfaces),
            (
                listens.iter().map(ToString::to_string).collect(),
                &["eth0".to_owned(), "docker0".to_owned()][..]
            )
        );
        let backends = config.services.iter().flat_map(|service| match &service.target {
            Target::Backends { backends, .. } => backends.clone(),
            Target::Cluster { .. } => Vec::new(),
        });
        assert_eq!(backends.map(|backend| backend.address).collect::<Vec<_>>(), servers(php));
        let found = config.clusters.iter().flat_map(|cluster| cluster.nodes.iter().map(|node| node.address));
        assert_eq!(found.collect::<Vec<_>>(), servers(nodes));
        assert!(text.lines().filter(|line| line.starts_with('#')).count() >= 5, "it explains itself: {text}");
    }
}

#[test]
fn what_is_left_to_do_can_be_typed() {
    let password = Password::generated();
    let mut plan = plan("10.0.0.11:80", "10.0.1.1:3306 10.0.1.2:3306");
    plan.missing = vec!["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    let (file, secret) = (Path::new("/etc/lb/lb.toml"), Path::new("/etc/lb/db.pw"));
    let said = text::left(&plan, file, true, Some((&password, secret)));
    let shown = password.expose();
    for line in [
        format!("  CREATE USER 'lb'@'10.0.0.10' IDENTIFIED BY '{shown}';"),
        format!("  CREATE USER 'lb'@'10.9.0.10' IDENTIFIED BY '{shown}';"),
        "  ip addr add 203.0.113.10/32 dev eth0".to_owned(),
        "  ip -6 addr add 2001:db8::10/128 dev eth0 preferred_lft 0".to_owned(),
        "  lb check --config /etc/lb/lb.toml".to_owned(),
        "The password is in /etc/lb/db.pw, readable to its owner only.".to_owned(),
    ] {
        assert!(said.lines().any(|said| said == line), "{line}\n{said}");
    }
    let said = text::left(&plan, file, false, Some((&password, secret)));
    assert!(said.contains(&format!("(umask 077; echo {shown} > /etc/lb/db.pw)")), "{said}");
    let said = text::left(&plan, file, true, None);
    assert!(!said.contains("CREATE USER"), "{said}");
}

#[test]
fn a_password_is_made_once_and_kept_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("etc/db.pw");
    let first = password::kept(&path).unwrap();
    assert!(first.is_new && first.expose().len() == 24);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let second = password::kept(&path).unwrap();
    assert_eq!((second.is_new, second.expose()), (false, first.expose()));
    assert_ne!(Password::generated().expose(), Password::generated().expose());
    fs::write(&path, "it's \\ mine\r\n").unwrap();
    assert_eq!(password::kept(&path).unwrap().quoted(), r"'it''s \\ mine'");
    fs::write(&path, "\n").unwrap();
    assert!(matches!(password::kept(&path), Err(InitError::NoPassword { .. })));
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.toml");
    written(&path, "mine", 0o644).unwrap();
    assert!(matches!(written(&path, "other", 0o644), Err(InitError::Exists { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
