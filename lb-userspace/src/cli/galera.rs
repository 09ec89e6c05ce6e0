//! `lb galera`: what concerns a database cluster as a whole.

use clap::{Args, Subcommand};

use crate::{
    api::{self, Command},
    config::parse_name,
};

/// `lb galera`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Galera {
    /// Show clusters: writer, nodes, what the servers count
    #[command(after_help = "Example:\n  lb galera status db")]
    Status(Shown),
    /// Hand the writer role over: new connections go to the other node at once, old ones have ten seconds
    #[command(
        after_help = "Example, to the best other node, then to one by name:\n  lb galera switch db\n  lb galera switch db db2"
    )]
    Switch(Switch),
    /// Leave the writer role where it is, whatever happens
    ///
    /// A frozen writer that is out leaves the service without one, and has the role again when it is back.
    #[command(
        after_help = "Example, around work on the databases:\n  lb galera freeze db\n  lb galera freeze db --off"
    )]
    Freeze(Freeze),
    /// In a split brain, or after a cluster was made anew: take the group that this node is in for the cluster
    ///
    /// A writer outside of that group loses the role and its connections at once.
    #[command(after_help = "Example:\n  lb galera accept db db2")]
    Accept(Accept),
}

/// `lb galera status`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Shown {
    /// Which cluster; without it, all
    #[arg(value_parser = parse_name)]
    pub cluster: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// `lb galera switch`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Switch {
    /// Which cluster
    #[arg(value_parser = parse_name)]
    pub cluster: String,
    /// Which node gets the role; without it, the best other one
    #[arg(value_parser = parse_name)]
    pub node: Option<String>,
}

/// `lb galera freeze`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Freeze {
    /// Which cluster
    #[arg(value_parser = parse_name)]
    pub cluster: String,
    /// Let the role move by itself again
    #[arg(long)]
    pub off: bool,
}

/// `lb galera accept`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Accept {
    /// Which cluster
    #[arg(value_parser = parse_name)]
    pub cluster: String,
    /// A node of the group that is right
    #[arg(value_parser = parse_name)]
    pub node: String,
}

impl Galera {
    /// What is asked of the agent.
    pub fn command(self) -> Command {
        match self {
            Self::Status(_) => Command::Status,
            Self::Switch(Switch { cluster, node }) => Command::Switch(api::Switch { cluster, node }),
            Self::Freeze(Freeze { cluster, off }) => Command::Freeze(api::Freeze { cluster, frozen: !off }),
            Self::Accept(Accept { cluster, node }) => Command::Accept(api::Accept { cluster, node }),
        }
    }
}
