//! Every error of meaning has its message, at its place; several come together; a syntax error comes alone.

use std::fmt::Write;
use std::fs;

use super::*;
use crate::config::load;

/// A file without errors, on which the table's edits are made.
const RIGHT: &str = include_str!("right.toml");
/// `OLD => NEW`, an edit of [`RIGHT`] in which `; ` ends a line, and below it the messages that it must give.
const TABLE: &str = include_str!("refused.txt");

/// `RIGHT` with one place changed.
fn edited(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "`{old}` stands once in the text");
    text.replacen(old, new, 1)
}

#[test]
fn the_file_before_the_edits_is_right() {
    assert_eq!(accepted(RIGHT).services.len(), 2);
}

#[test]
fn every_error_of_meaning_names_its_place_and_what_would_be_right() {
    let mut given = String::new();
    for line in TABLE.lines() {
        if let Some((old, new)) = line.split_once(" =>").filter(|_| !line.starts_with(' ')) {
            let new = new.strip_prefix(' ').unwrap_or_default();
            writeln!(given, "{line}").unwrap();
            for message in refused(&edited(RIGHT, &old.replace("; ", "\n"), &new.replace("; ", "\n"))) {
                writeln!(given, "  {message}").unwrap();
            }
        } else if !line.starts_with(' ') {
            writeln!(given, "{line}").unwrap();
        }
    }
    for (wanted, given) in TABLE.lines().zip(given.lines()) {
        assert_eq!(given, wanted);
    }
    assert_eq!(given, TABLE);
}

#[test]
fn errors_of_all_sections_come_together_in_the_order_of_the_file() {
    let edits = [
        (r#"["eth0"]"#, "[]"),
        (r#"name = "web""#, r#"name = "WEB""#),
        ("10.0.0.12:80", "10.0.0.12:0"),
        (r#"cluster = "db""#, r#"cluster = "bd""#),
        (r#"password-file = "db.pw""#, r#"password = "hunter2""#),
        ("10.0.1.2:3306", "10.0.1.1:3306"),
    ];
    let text = edits.iter().fold(RIGHT.to_owned(), |text, (old, new)| edited(&text, old, new));
    let places: Vec<String> = refused(&text)
        .iter()
        .map(|message| message.split_once(": error: ").expect("a place and a message").0.to_owned())
        .collect();
    assert_eq!(places, ["1:14", "3:8", "9:30", "14:11", "19:26", "22:29"]);
}

#[test]
fn a_syntax_error_comes_alone_and_first() {
    let table = [
        ("name = ", "1:8", "string values must be quoted, expected literal string"),
        ("interfaces = []\nname", "2:5", "key with no value, expected `=`"),
        ("interfaces = []\ninterfaces = []", "2:1", "duplicate key"),
        ("[[service]]\nname = \"ä\" x", "2:12", "unexpected key or value, expected newline, `#`"),
        (
            "interfaces = [\"eth0\"\nweight = 1001",
            "2:1",
            "missing comma between array elements, expected `,`",
        ),
    ];
    for (text, place, what) in table {
        let wanted = format!(
            "{place}: error: this is not TOML: {what}; mend this first; what follows has not been read"
        );
        assert_eq!(refused(text), [wanted], "{text}");
    }
}

#[test]
fn columns_count_characters_and_lines_end_as_editors_end_them() {
    let table = [
        ("interfaces = [\"eth0\"] # ä\r\nxdp-mode = 7", "2:12"),
        ("\u{feff}interfaces = []", "1:14"),
        ("interfaces = [\"ä ä\", \"eth0\", \"\"]", "1:15 1:30"),
    ];
    for (text, places) in table {
        let messages = refused(text);
        let given: Vec<&str> = messages.iter().filter_map(|message| message.split(": ").next()).collect();
        assert_eq!(given.join(" "), places, "{text}");
    }
}

#[test]
fn no_message_shows_a_password() {
    for (old, new) in [
        (r#"password-file = "db.pw""#, r#"password = "hunter2""#),
        (r#"password-file = "db.pw""#, r#"password-file = "two-lines.pw""#),
        (r#"password-file = "db.pw""#, r#"password-env = "LB_PW", password-file = "db.pw""#),
        (r#""lb", password-file = "db.pw""#, r#""lb", password-file = "db.pw", extra = 1"#),
    ] {
        let messages = refused(&edited(RIGHT, old, new)).join(" ");
        assert!(!messages.contains("hunter"), "{messages}");
    }
    assert!(!format!("{:?}", accepted(RIGHT)).contains("hunter"));
}

/// A file with this many services of this many backends each.
fn crowd(services: usize, backends: usize) -> String {
    let mut text = "interfaces = [\"eth0\"]\n".to_owned();
    for s in 1..=services {
        writeln!(text, "[[service]]\nname = \"s{s}\"\naddress = \"203.0.113.1:{s}/tcp\"\nbackends = [")
            .unwrap();
        for b in 1..=backends {
            let (high, low) = (b / 250, b % 250 + 1);
            writeln!(text, "{{ name = \"b{b}\", address = \"10.0.{high}.{low}:80\" }},").unwrap();
        }
        text.push_str("]\n");
    }
    text
}

#[test]
fn limits_are_what_one_instance_holds_and_are_reported_once() {
    assert_eq!(accepted(&crowd(255, 16)).services.len(), 255);
    let line = 2 + 255 * (5 + 1);
    let message = format!("{line}:1: error: too many services; at most 255 fit into one instance");
    assert_eq!(refused(&crowd(258, 1)), [message]);
    accepted(&crowd(1, 4095));
    let line = 2 + 4 + 4095;
    let right = "at most 4095 in all services together fit into one instance";
    assert_eq!(refused(&crowd(1, 4100)), [format!("{line}:1: error: too many backends; {right}")]);
    let with_cluster = RIGHT.replace("interfaces = [\"eth0\"]\n", &crowd(1, 4092));
    let line = RIGHT.lines().position(|line| line.starts_with("cluster =")).unwrap() + 4092 + 6;
    assert_eq!(refused(&with_cluster), [format!("{line}:11: error: too many backends; {right}")]);
    let with_sources = |count: u16| {
        let sources: Vec<String> =
            (0..count).map(|n| format!("\"10.9.{}.{}\"", n / 250, n % 250 + 1)).collect();
        let first = format!("interfaces = [\"eth0\"]\nsources = [{}]\n", sources.join(", "));
        RIGHT.replace("interfaces = [\"eth0\"]\n", &first)
    };
    assert_eq!(accepted(&with_sources(255)).sources.len(), 255);
    let message = "2:11: error: sources: more than 255 of IPv4; name at most 255 addresses";
    assert_eq!(refused(&with_sources(256)), [message]);
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.toml");
    let message = |says: &str| format!("{}{says}", path.display());
    let absent = ": error: the file cannot be read (No such file or directory (os error 2)); \
                  write one there, or name another with --config";
    assert_eq!(load(&path).unwrap_err().to_string(), message(absent));
    fs::write(&path, b"interfaces = []\nx = \"\xff\"").unwrap();
    let binary = ":2:6: error: this is not UTF-8; save the file as UTF-8 text";
    assert_eq!(load(&path).unwrap_err().to_string(), message(binary));
}

#[test]
fn a_password_file_is_looked_for_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.toml");
    fs::write(&path, RIGHT).unwrap();
    let errors = load(&path).unwrap_err().to_string();
    assert!(errors.contains("lb.toml:19:42: error: password-file: `db.pw` cannot be read"), "{errors}");
    fs::write(folder.path().join("db.pw"), "sesame\r\n").unwrap();
    assert_eq!(load(&path).unwrap().clusters[0].monitor.password.expose(), "sesame");
}

#[test]
fn ranges_of_ports_lie_apart_unless_address_or_protocol_differ() {
    let file = |first: &str, second: &str| {
        let service = |name: &str, address: &str| {
            let check = r#"check = { type = "tcp", port = 1 }"#;
            let backends = r#"backends = [{ name = "x", address = "10.0.0.11:80" }]"#;
            format!("[[service]]\nname = \"{name}\"\naddress = \"{address}\"\n{check}\n{backends}\n")
        };
        format!("interfaces = [\"eth0\"]\n{}{}", service("a", first), service("b", second))
    };
    let first = "203.0.113.10:8000-8099/tcp";
    for second in ["203.0.113.10:8099-8200/tcp", "203.0.113.10:7000-8000/tcp", "203.0.113.10:8001-8002/tcp"] {
        let wrong =
            format!("9:11: error: service address `{second}` shares ports with `{first}` at line 4; ");
        assert_eq!(refused(&file(first, second)), [wrong + "write ranges that lie apart"]);
    }
    for second in ["203.0.113.10:8100-8200/tcp", "203.0.113.10:8000-8099/udp", "203.0.113.11:8000-8099/tcp"] {
        assert_eq!(accepted(&file(first, second)).services.len(), 2, "{second}");
    }
    // A backend is no service of this balancer, on none of its ports.
    let itself = file("203.0.113.10:*/tcp", "203.0.113.11:80/tcp")
        .replace("10.0.0.11:80\" }]\n[[", "203.0.113.11:80\" }]\n[[");
    let message = "6:37: error: address: 203.0.113.11:80 is the service of line 9 itself; write the address of a server";
    assert_eq!(refused(&itself), [message]);
    let itself = file("203.0.113.10:*/tcp", "203.0.113.11:80/tcp")
        .replace("10.0.0.11:80\" }]\n[[", "203.0.113.10\" }]\n[[");
    let message =
        "6:37: error: address: 203.0.113.10 is the service of line 4 itself; write the address of a server";
    assert_eq!(refused(&itself), [message]);
}
