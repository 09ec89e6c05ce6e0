//! The command line: what can be typed, what it means, and what comes back as the exit code.
//!
//! Definitions and parsing only; nothing here opens a socket or a file.

use std::fmt;
use std::path::PathBuf;
use std::process;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    api::Then,
    config::{Fault, XdpMode, parse_duration, parse_name},
};

/// Where the configuration is unless said.
pub const DEFAULT_CONFIG: &str = "/etc/lb/lb.toml";

const EXIT_CODES: &str =
    "Exit codes: 0 done · 1 failed · 2 bad input · 3 agent not reached · 4 deadline passed";

/// A layer-4 load balancer in the kernel's XDP hook, for PHP and Galera.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "lb", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Which instance on this machine is meant
    #[arg(long, global = true, default_value = "lb", value_name = "NAME")]
    pub instance: Instance,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Attach to the interfaces and balance until told to stop
    ///
    /// When the agent ends or dies, the program stays attached and connections live on; `lb detach` removes it.
    #[command(after_help = "Example, over ssh, where a mistake must not lock you out:\n  \
                            lb run --confirm 60s      (then, in a new session: lb confirm)")]
    Run(Run),
    /// Read the configuration and say what is wrong with it; changes nothing
    #[command(after_help = "Example:\n  lb check --config ./lb.toml && systemctl restart lb")]
    Check(ConfigFile),
    /// Show services, backends and database nodes: state, connections, weights
    #[command(after_help = "Example:\n  watch -n 1 lb status")]
    Status(Status),
    /// Give a backend or database node no new connections; those that it has may finish
    ///
    /// A node that is its cluster's writer hands that role over first. `lb ready` takes the drain back.
    #[command(
        after_help = "Example, before maintenance of a server:\n  lb drain web/web1 --deadline 60s --then cut --wait"
    )]
    Drain(Drain),
    /// End a backend's or database node's connections now, with a RST to both sides
    ///
    /// It goes on taking new ones a moment later unless it is drained.
    #[command(after_help = "Example, of a server that hangs:\n  lb cut web/web1")]
    Cut(Cut),
    /// Let a drained backend or database node take new connections again
    #[command(after_help = "Example:\n  lb ready web/web1")]
    Ready(Ready),
    /// Keep an agent that was started with `--confirm`
    #[command(after_help = "Example:\n  lb confirm")]
    Confirm,
    /// Remove program, maps and pins: the interfaces are as if `lb` had never run
    ///
    /// Balanced connections break.
    #[command(after_help = "Example:\n  lb detach")]
    Detach,
}

/// Which file to read.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub config: PathBuf,
}

/// `lb run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// Which file to read.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Detach again unless `lb confirm` follows within this time, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub confirm: Option<Duration>,
    /// How to attach, whatever the file says
    #[arg(long, value_name = "MODE")]
    pub xdp_mode: Option<XdpMode>,
}

/// `lb status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// `lb drain`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Drain {
    /// SERVICE/BACKEND or CLUSTER/NODE, as `lb status` shows it
    pub name: Member,
    /// How long connections have to finish, such as 60s; without it, for ever
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// What becomes of connections that are left at the deadline
    #[arg(long, value_name = "FATE", default_value = "keep", requires = "deadline")]
    pub then: Then,
    /// Return when no connection is left; with exit code 4 if some are, at the deadline or after the cut
    #[arg(long)]
    pub wait: bool,
}

/// `lb cut`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Cut {
    /// SERVICE/BACKEND or CLUSTER/NODE, as `lb status` shows it
    pub name: Member,
}

/// `lb ready`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Ready {
    /// SERVICE/BACKEND or CLUSTER/NODE, as `lb status` shows it
    pub name: Member,
}

impl ValueEnum for XdpMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Native, Self::Generic]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => {
                PossibleValue::new("auto").help("in the driver if it can, else in the generic hook")
            }
            Self::Native => PossibleValue::new("native").help("in the driver or not at all"),
            Self::Generic => PossibleValue::new("generic").help("in the generic hook"),
        })
    }
}

impl ValueEnum for Then {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Keep, Self::Cut]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Keep => PossibleValue::new("keep").help("they go on"),
            Self::Cut => PossibleValue::new("cut").help("they end with a RST to both sides"),
        })
    }
}

/// The name of an instance; all that it keeps on the machine is found by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance(String);

impl Instance {
    /// The name itself.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The socket on which the agent answers.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/run/{self}/lb.sock"))
    }

    /// The folder of the pinned program and maps; layouts stand in subfolders.
    pub fn pins(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/{self}"))
    }

    /// What must survive a reboot: drains, the clusters' writers.
    pub fn state(&self) -> PathBuf {
        PathBuf::from(format!("/var/lib/{self}/state.json"))
    }
}

impl FromStr for Instance {
    type Err = Fault;

    /// The rules of names keep `/` and `..` out of the paths.
    fn from_str(text: &str) -> Result<Self, Fault> {
        parse_name(text).map(Self)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backend of a service or a node of a cluster: `OWNER/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The service or cluster.
    pub owner: String,
    /// The backend or node.
    pub name: String,
}

impl FromStr for Member {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let form = || Fault {
            wrong: format!("`{text}` is no SERVICE/BACKEND or CLUSTER/NODE"),
            right: "write it as `lb status` shows it: web/web1".to_owned(),
        };
        let (owner, name) = text.split_once('/').ok_or_else(form)?;
        match (parse_name(owner), parse_name(name)) {
            (Ok(owner), Ok(name)) => Ok(Self { owner, name }),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// How a command ended, as scripts see it. Usage errors end with [`Exit::BadInput`] by clap's own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    BadInput = 2,
    /// No agent answers on the instance's socket.
    NoAgent = 3,
    /// The deadline passed before it was done.
    DeadlinePassed = 4,
}

impl From<Exit> for process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
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
    fn every_command_means_what_is_typed() {
        let run = |path, confirm: Option<u64>, xdp_mode| {
            let confirm = confirm.map(Duration::from_secs);
            Command::Run(Run { file: file(path), confirm, xdp_mode })
        };
        let drain = |name, deadline: Option<u64>, then, wait| {
            let deadline = deadline.map(Duration::from_secs);
            Command::Drain(Drain { name: member(name), deadline, then, wait })
        };
        let table = [
            ("lb run", "lb", run(DEFAULT_CONFIG, None, None)),
            ("lb run --config a.toml --confirm 60s", "lb", run("a.toml", Some(60), None)),
            ("lb run --xdp-mode generic", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Generic))),
            ("lb run --xdp-mode native", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Native))),
            ("lb run --xdp-mode auto", "lb", run(DEFAULT_CONFIG, None, Some(XdpMode::Auto))),
            ("lb check", "lb", Command::Check(file("/etc/lb/lb.toml"))),
            ("lb check --config a.toml", "lb", Command::Check(file("a.toml"))),
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
            InvalidSubcommand, InvalidValue, MissingRequiredArgument, UnknownArgument, ValueValidation,
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
            let words = example.split_whitespace().take_while(|word| !word.starts_with(['(', '&']));
            assert!(Cli::try_parse_from(words).is_ok(), "{example}");
        }
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [Exit::Done, Exit::Failed, Exit::BadInput, Exit::NoAgent, Exit::DeadlinePassed];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4]);
    }
}
