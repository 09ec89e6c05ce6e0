//! Another configuration for a running agent, all or nothing.
//!
//! [`fixed`] says what stands in the way, [`diff`] what changes, [`merge`] what is to run: what the file says, whom
//! discovery has found, and who leaves. [`rebuild`] brings the agent there: what is known of those that stay is kept, new
//! ones are asked from now on, nobody asks those that leave. The data path learns of it by the next publication, as of any
//! other change. [`departure`] ends the leavers, [`files`] tells when the files have changed.

mod departure;
pub mod diff;
pub mod files;
mod fixed;
pub mod merge;
mod rebuild;
#[cfg(test)]
pub mod testing;

use std::{collections::BTreeSet, path::Path, time::Duration};

pub use departure::Leaving;

use super::{controller::Controller, machine, members::Members};
use crate::{
    api::{Changes, Entry, Refusal, RefusalKind, Reply, Topic},
    config::{self, Config, parse_name},
    netlink::Netlink,
};

/// What `lb status` calls a file that was refused.
pub(super) const FAULT: &str = "configuration";

/// Why a file is not taken up.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// It says something impossible, with line and column.
    #[error(transparent)]
    Bad(#[from] config::ConfigErrors),
    /// It wants an address or an interface that this host does not have.
    #[error(transparent)]
    Machine(#[from] crate::netlink::NetlinkError),
    /// It changes what cannot change.
    #[error("{}", .0.join("\n"))]
    Fixed(Vec<String>),
}

impl Controller {
    /// Take up the configuration's files as they are now. `deadline`: when connections of what goes are cut.
    ///
    /// If anything is wrong with them nothing changes, and `lb status` says so until they are right.
    pub(super) async fn reload(&mut self, why: &str, deadline: Option<Duration>) -> Reply {
        match self.read(&self.fixed.file.clone()).await {
            Ok((config, changes)) => {
                self.faults.remove(FAULT);
                let what = format!("the configuration is read: {} change(s)", changes.changes.len());
                self.journal.record(Entry::new(Topic::Reload, "", what).because(why));
                for change in &changes.changes {
                    self.journal.record(Entry::new(Topic::Reload, "", change.to_string()));
                }
                self.file_says = config;
                self.rebuild(deadline, &BTreeSet::new());
                Reply::Changes(Box::new(changes))
            }
            Err(refused) => {
                let error = refused.to_string();
                let what = "the configuration is refused, the running one stays";
                self.journal
                    .record(Entry::new(Topic::Reload, "", what).because(&*error).shown_by(why).error());
                let first = error.lines().next().unwrap_or_default();
                let path = self.fixed.file.display();
                self.faults.insert(FAULT.to_owned(), format!("{path} is not what runs: {first}"));
                let hint = "nothing was changed".to_owned();
                Reply::Refused(Refusal { kind: RefusalKind::BadInput, error, hint })
            }
        }
    }

    /// What a file would change. One that would be refused for what it changes is compared all the same.
    pub(super) async fn compare(&self, path: &Path) -> Reply {
        let failed = |error: String| {
            let hint = "the agent reads the file by itself: it must see it under this path".to_owned();
            Reply::Refused(Refusal { kind: RefusalKind::BadInput, error, hint })
        };
        let config = match config::load(path) {
            Ok(config) => config,
            Err(errors) => return failed(errors.to_string()),
        };
        let mut refused = self.refusals(&config);
        if let Err(error) = on_this_host(&config).await {
            refused.push(error.to_string());
        }
        let changes = diff::changes(&self.file_says, &config);
        Reply::Changes(Box::new(Changes { changes, refused }))
    }

    async fn read(&self, path: &Path) -> Result<(Config, Changes), Refused> {
        let config = config::load(path)?;
        let refused = self.refusals(&config);
        if !refused.is_empty() {
            return Err(Refused::Fixed(refused));
        }
        on_this_host(&config).await?;
        let changes = diff::changes(&self.file_says, &config);
        Ok((config, Changes { changes, refused }))
    }

    fn refusals(&self, config: &Config) -> Vec<String> {
        let wanted = merge::with_discovered(config, &self.state.discovered);
        let (merged, _) = merge::merge(wanted, &self.config, &BTreeSet::new());
        fixed::refusals(&self.file_says, config, &merged, &self.fixed.layout)
    }

    /// A source of discovery tells of a service's backends.
    pub(super) fn discovered(&mut self, members: Members) {
        let Members { service, source, mut found } = members;
        if !self.file_says.services.iter().any(|known| known.name == service) {
            return;
        }
        found.retain(|found| match parse_name(&found.name) {
            Ok(_) => true,
            Err(fault) => {
                log::warn!("{service}: {source}: {}; {}", fault.wrong, fault.right);
                false
            }
        });
        for found in &mut found {
            found.weight = found.weight.min(1_000);
        }
        let before = merge::with_discovered(&self.file_says, &self.state.discovered);
        let sources = self.state.discovered.entry(service).or_default();
        if sources.get(&source).map_or(found.is_empty(), |known| *known == found) {
            return;
        }
        if found.is_empty() {
            sources.remove(&source);
        } else {
            sources.insert(source.clone(), found);
        }
        let after = merge::with_discovered(&self.file_says, &self.state.discovered);
        for change in diff::changes(&before, &after) {
            self.journal.record(Entry::new(Topic::Discovery, "", change.to_string()).because(source.clone()));
        }
        self.store();
        self.rebuild(None, &BTreeSet::new());
    }
}

/// Proof that the addresses and interfaces of a configuration are this host's.
async fn on_this_host(config: &Config) -> Result<(), crate::netlink::NetlinkError> {
    machine::interfaces(&Netlink::open()?, config).await.map(|_| ())
}
