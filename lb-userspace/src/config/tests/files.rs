//! A configuration of many files: what stands where, and how errors name the places.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::config::{files, load, load_with_notes};

const RIGHT: &str = include_str!("right.toml");

/// A service of that name at that port of the balancer.
fn service(name: &str, port: u16) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"203.0.113.30:{port}/tcp\"\nbackends = [{{ name = \"a\", address = \"10.0.9.1:{port}\" }}]\n"
    )
}

/// A folder with a main file, the monitor's password, and files of `conf.d`.
fn folder(main: &str, beside: &[(&str, String)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lb.toml"), main).unwrap();
    let secret = folder.path().join("db.pw");
    fs::write(&secret, "hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    for (name, text) in beside {
        fs::write(folder.path().join("conf.d").join(name), text).unwrap();
    }
    folder
}

/// The messages about a folder's files, with the files' names only.
fn messages(folder: &Path) -> Vec<String> {
    let errors = load(&folder.join("lb.toml")).unwrap_err().to_string();
    errors.replace(&format!("{}/", folder.display()), "").lines().map(str::to_owned).collect()
}

#[test]
fn services_and_clusters_of_all_files_add_up_in_the_order_of_the_files_names() {
    let cluster = RIGHT[RIGHT.find("[[cluster]]").unwrap()..].to_owned();
    let main = RIGHT.replace(&cluster, "");
    let beside = [
        ("20-b.toml", service("b", 2)),
        ("10-db.toml", cluster),
        ("10-a.toml", service("a", 1)),
        (".hidden.toml", "nonsense".to_owned()),
        ("notes.txt", "nonsense".to_owned()),
        ("c.toml~", "nonsense".to_owned()),
    ];
    let folder = folder(&main, &beside);
    let path = folder.path().join("lb.toml");
    let config = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "sql", "a", "b"], "sql's cluster stands in another file");
    assert_eq!(config.clusters[0].monitor.password.expose(), "hunter2");
    let listed: Vec<String> = files(&path)
        .unwrap()
        .iter()
        .map(|file| file.strip_prefix(folder.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(listed, ["lb.toml", "conf.d/10-a.toml", "conf.d/10-db.toml", "conf.d/20-b.toml"]);
}

#[test]
fn errors_name_the_file_that_each_is_in_and_the_other_where_two_disagree() {
    let beside = [
        ("a.toml", format!("# mine\n{}", service("web", 1))),
        (
            "b.toml",
            service("b", 1).replace("mode", "").replace("name = \"b\"", "name = \"b\"\nmdoe = \"dsr\""),
        ),
        ("c.toml", format!("xdp-mode = \"native\"\nsomething = 1\n{}", service("c", 3))),
    ];
    let folder = folder(RIGHT, &beside);
    assert_eq!(
        messages(folder.path()),
        [
            "conf.d/a.toml:3:8: error: name `web` is taken already, at lb.toml:3; names of services and clusters differ",
            "conf.d/b.toml:3:1: error: unknown key `mdoe` in a service; did you mean `mode`?",
            "conf.d/b.toml:4:11: error: service address `203.0.113.30:1/tcp` is taken already, at conf.d/a.toml:4; each service has its own",
            "conf.d/c.toml:1:1: error: xdp-mode: only the main file says it; write it into lb.toml",
            "conf.d/c.toml:2:1: error: unknown key `something` in a file of conf.d; a file of conf.d has: service, cluster",
        ]
    );
}

#[test]
fn files_that_are_no_toml_are_named_all_together_and_alone() {
    let broken = "[[service]\n".to_owned();
    let beside = [("a.toml", broken.clone()), ("b.toml", service("web", 1)), ("c.toml", broken)];
    let folder = folder(RIGHT, &beside);
    let messages = messages(folder.path());
    let places: Vec<&str> = messages.iter().map(|message| message.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["conf.d/a.toml:1:11", "conf.d/c.toml:1:11"], "{messages:?}");
}

#[test]
fn what_cannot_be_read_is_named_with_its_reason() {
    let folder = folder(RIGHT, &[]);
    fs::create_dir(folder.path().join("conf.d/a.toml")).unwrap();
    fs::write(folder.path().join("conf.d/b.toml"), "a".repeat(4 * 1024 * 1024 + 1)).unwrap();
    fs::write(folder.path().join("conf.d/c.toml"), b"x = \"\xff\"").unwrap();
    assert_eq!(
        messages(folder.path()),
        [
            "conf.d/a.toml: error: the file cannot be read (Is a directory (os error 21)); name a readable file with --config",
            "conf.d/b.toml:1:1: error: this is longer than 4 MiB; name a configuration",
            "conf.d/c.toml:1:6: error: this is not UTF-8; save the file as UTF-8 text",
        ]
    );
    fs::remove_dir_all(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d"), "").unwrap();
    assert_eq!(
        messages(folder.path()),
        [
            "conf.d: error: the file cannot be read (Not a directory (os error 20)); name a readable file with --config"
        ]
    );
}

#[test]
fn a_password_that_everybody_can_read_is_taken_and_said() {
    for (mode, said) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        let folder = folder(RIGHT, &[]);
        fs::set_permissions(folder.path().join("db.pw"), fs::Permissions::from_mode(mode)).unwrap();
        let (config, notes) = load_with_notes(&folder.path().join("lb.toml")).unwrap();
        assert_eq!(config.clusters.len(), 1);
        let notes: Vec<String> = notes.iter().map(crate::config::ConfigError::text).collect();
        let wanted = format!(
            "{}:19:42: `db.pw` is open to everybody on this machine (mode {mode:04o}); close it: chmod 600 db.pw",
            folder.path().join("lb.toml").display()
        );
        assert_eq!(notes, if said { vec![wanted] } else { Vec::new() });
    }
}

#[test]
fn a_secret_is_nowhere_in_what_can_be_printed() {
    const CANARY: &str = "canary-7f3a";
    let folder = folder(RIGHT, &[]);
    let path = folder.path().join("lb.toml");
    fs::set_permissions(folder.path().join("db.pw"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut printed = String::new();
    for secret in [CANARY, "canary-7f3a\ncanary-7f3a", "canary-7f3a\0"] {
        fs::write(folder.path().join("db.pw"), secret).unwrap();
        match load_with_notes(&path) {
            Ok((config, notes)) => {
                assert_eq!(config.clusters[0].monitor.password.expose(), CANARY);
                write!(printed, "{config:?} {config:#?} {notes:?}").unwrap();
            }
            Err(errors) => write!(printed, "{errors} {errors:?}").unwrap(),
        }
    }
    let inline = RIGHT.replace("password-file = \"db.pw\"", "password = \"canary-7f3a\"");
    let typed = RIGHT.replace("\"db.pw\"", "{ text = \"canary-7f3a\" }");
    for text in [inline, typed] {
        fs::write(&path, text).unwrap();
        let errors = load(&path).unwrap_err();
        write!(printed, "{errors} {errors:?}").unwrap();
    }
    assert!(printed.len() > 500 && !printed.contains("canary"), "{printed}");
}
