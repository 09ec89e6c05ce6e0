//! The command line: what can be typed, what it means, and what comes back as the exit code.
//!
//! Definitions and parsing only; nothing here opens a socket or a file.

mod galera;
mod init;
mod observe;
mod show;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::process;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    api::{NoWeight, Then, Weight},
    config::{Fault, XdpMode, parse_duration, parse_name},
};

pub use self::galera::{Accept, Freeze, Galera, Shown, Switch};
pub use self::init::Init;
pub use self::observe::{Capture, Trace};
pub use self::show::{Completions, Events, Explain, Shell};

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
    #[command(after_help = "Examples:\n  lb check --config ./lb.toml && systemctl restart lb\n  \
                            lb check --diff ./lb.toml      (what it would change in the running agent)")]
    Check(Check),
    /// Take up the configuration's files as they are now, all or nothing
    ///
    /// SIGHUP does the same, and so does a change of the files. What is removed takes no new connections; those that it
    /// has may finish.
    #[command(after_help = "Example:\n  lb reload")]
    Reload(Reload),
    /// Write a configuration for this machine, with comments, and say what is left to do
    ///
    /// It finds the interfaces and the address by this host's routes, makes a password for the databases' monitor, and
    /// prints the CREATE USER that they need. Changes nothing but the files that it writes.
    #[command(
        after_help = "Example:\n  lb init --php 10.0.0.11,10.0.0.12 --galera 10.0.1.1,10.0.1.2,10.0.1.3 --output /etc/lb/lb.toml"
    )]
    Init(Init),
    /// Show services, backends and database nodes: state, connections, weights
    #[command(after_help = "Example:\n  watch -n 1 lb status")]
    Status(Status),
    /// Show what has changed: health, writers, drains, suspicions, alarms, with reasons
    #[command(after_help = "Example:\n  lb events --since 10m -f")]
    Events(Events),
    /// Say all that is known of one service, backend, cluster or node, why it is so, and what one may type
    #[command(after_help = "Example:\n  lb explain web/web1")]
    Explain(Explain),
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
    /// Let a backend or database node take new connections again that is drained or in maintenance
    #[command(after_help = "Example:\n  lb ready web/web1")]
    Ready(Ready),
    /// Give a backend or database node no new connections, whatever its probes say; those that it has may finish
    ///
    /// It survives reload and restart. `lb ready` ends it.
    #[command(after_help = "Example, while a server is being rebuilt:\n  lb maint web/web1")]
    Maint(Maint),
    /// Give a backend another weight than the configured one
    ///
    /// It survives reload and restart, and moves no connection that there is.
    #[command(after_help = "Examples:\n  lb weight web/web1 50%\n  lb weight web/web1 reset")]
    Weight(SetWeight),
    /// Look at a database cluster, and say which node writes
    #[command(subcommand, after_help = "Example:\n  lb galera status db")]
    Galera(Galera),
    /// Show packets as they come in and as they leave, with what became of them
    ///
    /// In a line each, or as a file for Wireshark. `tcpdump` on this host does not see balanced packets. The programs on
    /// the interfaces are replaced by ones that copy packets for as long as it lasts.
    #[command(
        after_help = "Example, of a client that complains:\n  lb capture --client 198.51.100.7 --seconds 10 -w client.pcapng"
    )]
    Capture(Capture),
    /// Say what would become of a packet: the program runs over it, and nothing is sent, changed or counted
    #[command(after_help = "Example:\n  lb trace 198.51.100.7:40000 web")]
    Trace(Trace),
    /// Keep an agent that was started with `--confirm`
    #[command(after_help = "Example:\n  lb confirm")]
    Confirm,
    /// Print what teaches a shell the commands and options of `lb`
    #[command(after_help = "Example:\n  lb completions bash > /usr/share/bash-completion/completions/lb")]
    Completions(Completions),
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

/// `lb check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// Which file to read.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Say what this file would change in the running agent; --config is not read then
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub diff: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, requires = "diff")]
    pub json: bool,
}

/// `lb reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Reload {
    /// Cut what connections are left of what is removed after this time, such as 5m; without it, they may take for ever
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub deadline: Option<Duration>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
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

/// `lb maint`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Maint {
    /// SERVICE/BACKEND or CLUSTER/NODE, as `lb status` shows it
    pub name: Member,
}

/// `lb weight`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SetWeight {
    /// SERVICE/BACKEND, as `lb status` shows it
    pub name: Member,
    /// 0 to 1000, a part of the configured weight such as 50%, or reset
    pub weight: WeightWish,
}

/// A weight that is set, or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightWish(pub Option<Weight>);

impl FromStr for WeightWish {
    type Err = NoWeight;

    fn from_str(text: &str) -> Result<Self, NoWeight> {
        if text == "reset" { Ok(Self(None)) } else { text.parse().map(|weight| Self(Some(weight))) }
    }
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
