//! What can be typed, and what is refused.

use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn typed(line: &str) -> Cli {
    Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn instance(name: &str) -> Instance {
    name.parse().unwrap()
}

fn member(text: &str) -> Member {
    text.parse().unwrap()
}

fn file(path: &str) -> ConfigFile {
    ConfigFile { config: path.into() }
}

#[test]
fn definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of all that can be typed")]
fn every_command_means_what_is_typed() {
    let run = |path, confirm: Option<u64>, xdp_mode| {
        let confirm = confirm.map(Duration::from_secs);
        Command::Run(Run { file: file(path), confirm, xdp_mode })
    };
    let drain = |name, deadline: Option<u64>, then, wait| {
        let deadline = deadline.map(Duration::from_secs);
        Command::Drain(Drain { name: member(name), deadline, then, wait })
    };
    let check = |path, diff: Option<&str>, json| {
        Command::Check(Check { file: file(path), diff: diff.map(PathBuf::from), json })
    };
    let weight = |name, weight| Command::Weight(SetWeight { name: member(name), weight: WeightWish(weight) });
    let galera = Command::Galera;
    let trace = |client: &str, port, ack| {
        Command::Trace(Trace {
            client: client.parse().unwrap(),
            service: "web".to_owned(),
            port,
            interface: None,
            syn: false,
            ack,
            json: ack,
        })
    };
    let table = [
        ("lb run", "lb", run(DEFAULT_CONFIG, None, None)),
        ("lb run --config a.toml --confirm 60s", "lb", run("a.toml", Some(60), None)),
        ("lb run --xdp-mode generic", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Generic))),
        ("lb run --xdp-mode native", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Native))),
        ("lb run --xdp-mode auto", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Auto))),
        ("lb check", "lb", check("/etc/lb/lb.toml", None, false)),
        ("lb check --config a.toml", "lb", check("a.toml", None, false)),
        ("lb check --diff b.toml", "lb", check("/etc/lb/lb.toml", Some("b.toml"), false)),
        ("lb check --diff b.toml --json", "lb", check("/etc/lb/lb.toml", Some("b.toml"), true)),
        ("lb reload", "lb", Command::Reload(Reload { deadline: None, json: false })),
        (
            "lb reload --deadline 5m --json",
            "lb",
            Command::Reload(Reload { deadline: Some(Duration::from_mins(5)), json: true }),
        ),
        ("lb status", "lb", Command::Status(Status { json: false })),
        ("lb status --json", "lb", Command::Status(Status { json: true })),
        ("lb --instance edge-2 status", "edge-2", Command::Status(Status { json: false })),
        ("lb status --instance edge-2", "edge-2", Command::Status(Status { json: false })),
        ("lb drain web/web1", "lb", drain("web/web1", None, Then::Keep, false)),
        ("lb drain db/db1 --deadline 2m --wait", "lb", drain("db/db1", Some(120), Then::Keep, true)),
        ("lb drain a/b --deadline 1s --then cut", "lb", drain("a/b", Some(1), Then::Cut, false)),
        ("lb drain a/b --deadline 1s --then keep", "lb", drain("a/b", Some(1), Then::Keep, false)),
        ("lb cut web/web1", "lb", Command::Cut(Cut { name: member("web/web1") })),
        ("lb ready web/web1", "lb", Command::Ready(Ready { name: member("web/web1") })),
        ("lb maint web/web1", "lb", Command::Maint(Maint { name: member("web/web1") })),
        ("lb weight web/web1 50", "lb", weight("web/web1", Some(Weight::Absolute(50)))),
        ("lb weight web/web1 50%", "lb", weight("web/web1", Some(Weight::Percent(50)))),
        ("lb weight web/web1 reset", "lb", weight("web/web1", None)),
        ("lb capture", "lb", Command::Capture(Capture::default())),
        (
            "lb capture --service web --client fd00::1 --reason no-flow --count 5 --seconds 10 -w -",
            "lb",
            Command::Capture(Capture {
                service: Some("web".to_owned()),
                client: Some("fd00::1".parse().unwrap()),
                reason: Some("no-flow".to_owned()),
                count: Some(5),
                seconds: Some(10),
                write: Some("-".to_owned()),
                ..Capture::default()
            }),
        ),
        (
            "lb capture --dropped --all --write a.pcapng",
            "lb",
            Command::Capture(Capture {
                dropped: true,
                all: true,
                write: Some("a.pcapng".to_owned()),
                ..Capture::default()
            }),
        ),
        ("lb trace 198.51.100.7:40000 web", "lb", trace("198.51.100.7:40000", None, false)),
        ("lb trace 198.51.100.7:40000 web --syn", "lb", {
            let Command::Trace(plain) = trace("198.51.100.7:40000", None, false) else { unreachable!() };
            Command::Trace(Trace { syn: true, ..plain })
        }),
        ("lb trace [fd00::7]:1 web --ack --json --port 81", "lb", trace("[fd00::7]:1", Some(81), true)),
        ("lb galera status", "lb", galera(Galera::Status(Shown { cluster: None, json: false }))),
        (
            "lb galera status db --json",
            "lb",
            galera(Galera::Status(Shown { cluster: Some("db".to_owned()), json: true })),
        ),
        (
            "lb galera switch db",
            "lb",
            galera(Galera::Switch(Switch { cluster: "db".to_owned(), node: None })),
        ),
        (
            "lb galera switch db db2",
            "lb",
            galera(Galera::Switch(Switch { cluster: "db".to_owned(), node: Some("db2".to_owned()) })),
        ),
        (
            "lb galera freeze db --off",
            "lb",
            galera(Galera::Freeze(Freeze { cluster: "db".to_owned(), off: true })),
        ),
        (
            "lb galera accept db db2",
            "lb",
            galera(Galera::Accept(Accept { cluster: "db".to_owned(), node: "db2".to_owned() })),
        ),
        ("lb events", "lb", Command::Events(Events::default())),
        (
            "lb events web/web1 -f --since 10m --json",
            "lb",
            Command::Events(Events {
                name: Some("web/web1".to_owned()),
                follow: true,
                since: Some(Duration::from_mins(10)),
                json: true,
            }),
        ),
        ("lb explain db", "lb", Command::Explain(Explain { name: "db".to_owned(), json: false })),
        ("lb completions zsh", "lb", Command::Completions(Completions { shell: Shell::Zsh })),
        (
            "lb init --php 10.0.0.11,10.0.0.12:8080 --output a.toml",
            "lb",
            Command::Init(Init {
                php: ["10.0.0.11:80", "10.0.0.12:8080"].map(|server| server.parse().unwrap()).to_vec(),
                output: Some("a.toml".into()),
                ..Init::default()
            }),
        ),
        (
            "lb init --galera 2001:db8::1,[2001:db8::2]:3307 --address 2001:db8::9 --interface eth0,eth1",
            "lb",
            Command::Init(Init {
                galera: ["[2001:db8::1]:3306", "[2001:db8::2]:3307"]
                    .map(|node| node.parse().unwrap())
                    .to_vec(),
                address: Some("2001:db8::9".parse().unwrap()),
                interface: vec!["eth0".to_owned(), "eth1".to_owned()],
                ..Init::default()
            }),
        ),
        ("lb confirm", "lb", Command::Confirm),
        ("lb detach", "lb", Command::Detach),
    ];
    for (line, name, command) in table {
        assert_eq!(typed(line), Cli { instance: instance(name), command }, "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error_with_exit_code_2() {
    use ErrorKind::{
        ArgumentConflict, InvalidSubcommand, InvalidValue, MissingRequiredArgument, UnknownArgument,
        ValueValidation,
    };
    let table = [
        ("lb top", InvalidSubcommand, "unrecognized subcommand 'top'"),
        ("lb run --confirm 60", ValueValidation, "`60` has no unit; write a number and a unit"),
        ("lb run --confirm 0s", ValueValidation, "`0s` is no time at all"),
        ("lb run --xdp-mode offload", InvalidValue, "[possible values: auto, native, generic]"),
        ("lb drain", MissingRequiredArgument, "<NAME>"),
        ("lb drain web/web1 --then cut", MissingRequiredArgument, "--deadline"),
        ("lb drain a/b --deadline 1s --then kill", InvalidValue, "[possible values: keep, cut]"),
        ("lb cut", MissingRequiredArgument, "<NAME>"),
        ("lb cut web", ValueValidation, "`web` is no SERVICE/BACKEND or CLUSTER/NODE"),
        ("lb drain web1", ValueValidation, "`web1` is no SERVICE/BACKEND or CLUSTER/NODE; write it as"),
        ("lb drain web/", ValueValidation, "`web/` is no SERVICE/BACKEND"),
        ("lb drain a/b/c", ValueValidation, "`a/b/c` is no SERVICE/BACKEND"),
        ("lb ready Web/web1", ValueValidation, "`Web/web1` is no SERVICE/BACKEND"),
        ("lb weight web/web1", MissingRequiredArgument, "<WEIGHT>"),
        ("lb weight web/web1 half", ValueValidation, "`half` is no weight; write 0 to 1000"),
        ("lb weight web/web1 1001", ValueValidation, "`1001` is no weight"),
        ("lb check --json", MissingRequiredArgument, "--diff"),
        ("lb check --diff", InvalidValue, "a value is required for '--diff <FILE>'"),
        ("lb check --diff a --config b", ArgumentConflict, "cannot be used with"),
        ("lb capture --count 0", ValueValidation, "0 is not in 1.."),
        ("lb capture --client web", ValueValidation, "invalid IP address syntax"),
        ("lb capture --dropped --reason no-flow", ArgumentConflict, "cannot be used with"),
        ("lb trace 198.51.100.7 web", ValueValidation, "invalid socket address syntax"),
        ("lb trace 198.51.100.7:1", MissingRequiredArgument, "<SERVICE>"),
        ("lb trace 198.51.100.7:1 web --syn --ack", ArgumentConflict, "cannot be used with"),
        ("lb init", MissingRequiredArgument, "--php"),
        ("lb init --php web1", ValueValidation, "`web1` is no address of a server; write 10.0.0.11"),
        ("lb init --php 10.0.0.11:0", ValueValidation, "`10.0.0.11:0` is no address"),
        ("lb events --since 10", ValueValidation, "`10` has no unit"),
        ("lb explain", MissingRequiredArgument, "<NAME>"),
        ("lb completions tcsh", InvalidValue, "[possible values: bash, zsh, fish]"),
        ("lb detach --force", UnknownArgument, "--force"),
        ("lb --instance ../x status", ValueValidation, "`../x` is no name; use a-z"),
        ("lb --instance .. status", ValueValidation, "`..` is no name"),
        ("lb --instance UP status", ValueValidation, "`UP` is no name"),
    ];
    for (line, kind, says) in table {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
}

#[test]
fn an_instance_owns_its_paths() {
    for name in ["lb", "edge-2"] {
        let instance = instance(name);
        assert_eq!(instance.socket(), PathBuf::from(format!("/run/{name}/lb.sock")));
        assert_eq!(instance.pins(), PathBuf::from(format!("/sys/fs/bpf/{name}")));
        assert_eq!(instance.state(), PathBuf::from(format!("/var/lib/{name}/state.json")));
    }
}

#[test]
fn every_command_has_help_with_an_example_that_parses() {
    for command in Cli::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "lb {name}: {help}");
        let example = help
            .lines()
            .skip_while(|line| !line.starts_with("Example"))
            .find_map(|line| line.trim().find("lb ").map(|start| line.trim()[start..].to_owned()))
            .unwrap_or_else(|| panic!("lb {name}: {help}"));
        let words = example.split_whitespace().take_while(|word| !word.starts_with(['(', '&', '>']));
        assert!(Cli::try_parse_from(words).is_ok(), "{example}");
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let codes = [Exit::Done, Exit::Failed, Exit::BadInput, Exit::NoAgent, Exit::DeadlinePassed];
    assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4]);
}
