//! Members by the labels of Docker's containers.
//!
//! | label | means |
//! | --- | --- |
//! | `lb.service` | the service that the container serves |
//! | `lb.port` | the port within the container; by default the source's |
//! | `lb.weight` | 0 to 1000, by default 100 |
//! | `lb.name` | the member's name, by default the container's |
//! | `lb.network` | which of its networks; needed where it has several and the source names none |
//!
//! The daemon's events are subscribed to first, then the containers are listed, so that nothing falls between the two.
//! Events hasten the next look at the list; only two of them are acted upon by themselves ([`fleet`]): `kill` with the
//! container's stop signal, the moment to drain, and `die`, the moment to cut. A look comes each minute anyway. While
//! the daemon is away, the last set holds.

mod client;
mod container;
mod event;
mod fleet;
mod signal;

use std::{path::PathBuf, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{Member, Members, Teller, pace::Pace};
use client::{ClientError, Events};
use fleet::{Fleet, Heard};

/// From one look at the list to the next where no event asks for one.
const RESYNCHRONISE: Duration = Duration::from_mins(1);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// A source of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The daemon's Unix socket.
    pub socket: PathBuf,
    /// The value of `lb.service` on the containers that are meant.
    pub service: String,
    /// The port of containers without `lb.port`; 0: the port that the client connected to.
    pub port: u16,
    /// The network of containers without `lb.network`.
    pub network: Option<String>,
    /// IPv6 addresses are taken instead of IPv4.
    pub ipv6: bool,
}

/// Why the daemon is followed no more.
enum Ended {
    /// Nobody takes sets any more.
    Unheard,
    /// The daemon is lost.
    Lost(ClientError),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Lost(error)
    }
}

impl Source {
    /// See [`super::Source::run`].
    pub(super) async fn run(self, kept: Option<Vec<Member>>, out: mpsc::Sender<Members>) {
        let mut follower = Follower {
            fleet: Fleet::new(self.clone()),
            teller: Teller::new(out),
            list: kept,
            pace: Pace::default(),
            source: self,
            retry: FIRST_RETRY,
        };
        loop {
            let lost = match follower.follow().await {
                Ended::Unheard => return,
                Ended::Lost(lost) => lost,
            };
            if !follower.tell_lost(&lost).await {
                return;
            }
            tokio::select! {
                () = sleep(follower.retry) => {}
                () = follower.teller.closed() => return,
            }
            follower.retry = (follower.retry * 2).min(LAST_RETRY);
        }
    }
}

/// What follows one daemon, through all its restarts.
struct Follower {
    source: Source,
    fleet: Fleet,
    teller: Teller,
    /// The set that was told last.
    list: Option<Vec<Member>>,
    pace: Pace,
    retry: Duration,
}

impl Follower {
    /// Follows the daemon for as long as it is there.
    async fn follow(&mut self) -> Ended {
        match self.connected().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn connected(&mut self) -> Result<std::convert::Infallible, Ended> {
        let mut events = client::events(&self.source.socket).await?;
        let mut look_due = self.look().await?;
        self.retry = FIRST_RETRY;
        let mut to_look = false;
        loop {
            let due = self.pace.due().unwrap_or(look_due).min(look_due);
            tokio::select! {
                // The clock first: no flood of events puts it off.
                biased;
                () = sleep_until(due) => {
                    if to_look || Instant::now() >= look_due {
                        look_due = self.look().await?;
                        to_look = false;
                    } else {
                        self.tell().await?;
                    }
                }
                heard = hear(&mut events, &mut self.fleet) => match heard? {
                    Heard::Nothing => {}
                    Heard::Changed => self.pace.urgent(Instant::now()),
                    Heard::Look => {
                        to_look = true;
                        self.pace.event(Instant::now());
                    }
                },
                () = self.teller.closed() => return Err(Ended::Unheard),
            }
        }
    }

    /// Looks at the containers; when to look again.
    async fn look(&mut self) -> Result<Instant, Ended> {
        let looking = client::containers(&self.source.socket, &self.source.service);
        let containers = tokio::select! {
            containers = looking => containers?,
            () = self.teller.closed() => return Err(Ended::Unheard),
        };
        self.fleet.listed(containers);
        self.tell().await?;
        Ok(Instant::now() + RESYNCHRONISE)
    }

    async fn tell(&mut self) -> Result<(), Ended> {
        let (list, trouble) = self.fleet.members();
        self.list = Some(list.clone());
        self.pace.done(Instant::now());
        let told = self.teller.tell(Members { list: Some(list), trouble }).await;
        if told { Ok(()) } else { Err(Ended::Unheard) }
    }

    async fn tell_lost(&mut self, lost: &ClientError) -> bool {
        let (list, kept) = match &self.list {
            Some(list) if list.len() == 1 => (Some(list.clone()), "its last member is kept".to_owned()),
            Some(list) => (Some(list.clone()), format!("its last {} members are kept", list.len())),
            None => (None, "no members are known yet".to_owned()),
        };
        self.teller.tell(Members { list, trouble: Some(format!("{lost}; {kept}")) }).await
    }
}

/// What the next event means.
async fn hear(events: &mut Events, fleet: &mut Fleet) -> Result<Heard, ClientError> {
    Ok(fleet.hear(&events.next().await?))
}
