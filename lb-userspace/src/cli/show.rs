//! `lb events`, `lb explain` and `lb completions`.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::PossibleValue};
use clap_complete::aot;

use crate::{api, config::parse_duration};

/// `lb events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Events {
    /// Only of this service or cluster and what belongs to it, or of this one backend or node
    pub name: Option<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only of the last so long, such as 10m; without it, all that the agent remembers (1,000)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Print JSON for programs, an object a line
    #[arg(long)]
    pub json: bool,
}

impl From<&Events> for api::Events {
    fn from(events: &Events) -> Self {
        Self {
            name: events.name.clone(),
            since_ms: events.since.map(|since| since.as_millis() as u64),
            follow: events.follow,
        }
    }
}

/// `lb explain`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Explain {
    /// SERVICE, SERVICE/BACKEND, CLUSTER or CLUSTER/NODE, as `lb status` shows it
    pub name: String,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// `lb completions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// A shell that can be taught what `lb` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

impl ValueEnum for Shell {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Bash, Self::Zsh, Self::Fish]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }))
    }
}

impl From<Shell> for aot::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
        }
    }
}
