//! A service's ring on its way into the slots: which one it needs, whether it has changed, where it lies.

use std::time::Duration;

use lb_common::{
    Ticks,
    abi::{Service, algorithm, service_flag},
};

use super::{
    DataplaneError,
    common::Common,
    desired::{DesiredService, Timeouts},
    service::KnownService,
};
use crate::{
    health::Moment,
    listen::Protocol,
    ring::{self, Member, Region, Settling, hashed, settling::Refused, turns, words},
};

/// Whom a ring is for: the same shares always give the same ring.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shares {
    algorithm: u8,
    /// Backends that the configuration names, whatever their health.
    configured: usize,
    members: Vec<Member>,
}

/// A ring in its place.
pub(super) struct Laid {
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) members: u16,
    /// Nobody takes new connections.
    pub(super) empty: bool,
    /// It lies elsewhere than before: the old region is to rest.
    pub(super) moved: bool,
    /// The ring that is wanted has to wait, for the last change was less than a second ago.
    pub(super) waits: bool,
    pub(super) shares: Shares,
    pub(super) settling: Option<Settling>,
}

impl Shares {
    /// `open`: ids and weights of the backends that take new connections, with their addresses.
    pub(super) fn new(of: &DesiredService, open: &[(u16, u32, std::net::SocketAddr)]) -> Self {
        let secret = of.listen.to_string();
        let member = |&(id, weight, address): &(u16, u32, std::net::SocketAddr)| Member {
            id,
            key: ring::key(secret.as_bytes(), address.to_string().as_bytes()),
            weight,
        };
        Self {
            algorithm: of.algorithm,
            configured: of.backends.len(),
            members: open.iter().map(member).collect(),
        }
    }

    fn is_hashed(&self) -> bool {
        matches!(self.algorithm, algorithm::MAGLEV | algorithm::SOURCE_HASH)
    }

    /// The ring; `previous`: the length of the one before.
    fn ring(&self, previous: Option<u32>) -> Vec<u16> {
        if self.members.is_empty() {
            return Vec::new();
        }
        if self.is_hashed() {
            return hashed::build(&self.members, ring::hashed_length(self.configured));
        }
        let length = ring::length(self.members.len(), previous);
        if self.algorithm == algorithm::ROUND_ROBIN {
            turns::build(&self.members, length)
        } else {
            hashed::build(&self.members, length)
        }
    }
}

impl Common {
    /// Lay out the ring that `shares` ask for, if it differs from the one before. `gone`: backends that keep no
    /// connections.
    pub(super) fn lay_out(
        &mut self,
        before: Option<&KnownService>,
        of: &DesiredService,
        shares: Shares,
        gone: impl Fn(u16) -> bool,
    ) -> Result<Laid, DataplaneError> {
        if of.on_change {
            return self.lay_out_settling(before, of, shares, gone);
        }
        let old = before.map_or_else(Service::default, |known| known.entry);
        if before.is_some_and(|known| known.settling.is_none() && known.shares.as_ref() == Some(&shares)) {
            return Ok(stays(&old, shares, None));
        }
        let ring = shares.ring((old.ring_length > 0).then_some(old.ring_length));
        self.place(&old, ring.len() as u32, &words::settled(&ring), shares, None)
    }

    /// The same where connections are looked up only in slots that are changing hands.
    fn lay_out_settling(
        &mut self,
        before: Option<&KnownService>,
        of: &DesiredService,
        shares: Shares,
        gone: impl Fn(u16) -> bool,
    ) -> Result<Laid, DataplaneError> {
        let (now, idle) = (moment(), idle(of.listen.protocol, &of.timeouts));
        let old = before.map_or_else(Service::default, |known| known.entry);
        let mut known = before.and_then(|known| known.settling.clone());
        if known.is_none() && old.flags & service_flag::ON_CHANGE != 0 && old.ring_length > 0 {
            let left = self.slots.read(old.ring_offset, old.ring_length);
            known = Some(Settling::adopted(&left, idle, now));
        }
        let Some(mut settling) = known else {
            let ring = shares.ring(None);
            let settling = (!ring.is_empty()).then(|| Settling::new(&ring, idle));
            return self.place(&old, ring.len() as u32, &words::settled(&ring), shares, settling);
        };
        settling.set_idle(idle, now);
        let length = settling.length() as u32;
        let ring =
            if shares.members.is_empty() { Vec::new() } else { hashed::build(&shares.members, length) };
        match settling.change(&ring, gone, now) {
            Ok(true) => {
                let words = settling.words();
                self.place(&old, length, &words, shares, Some(settling))
            }
            Ok(false) => Ok(stays(&old, shares, Some(settling))),
            Err(Refused::TooSoon { .. }) => Ok(Laid { waits: true, ..stays(&old, shares, Some(settling)) }),
            // The ring was built with the length of the one before.
            Err(Refused::Length { .. }) => Err(DataplaneError::RingsFull),
        }
    }

    /// Write a ring's words, the first `length` of which are slots, into a free region.
    fn place(
        &mut self,
        old: &Service,
        length: u32,
        words: &[u32],
        shares: Shares,
        settling: Option<Settling>,
    ) -> Result<Laid, DataplaneError> {
        let region = if words.is_empty() {
            Region { offset: 0, length: 0 }
        } else {
            self.regions.allocate(words.len() as u32).map_err(|_| DataplaneError::RingsFull)?
        };
        self.slots.write(region.offset, words);
        Ok(Laid {
            offset: region.offset,
            length,
            members: (region.length - length) as u16,
            empty: shares.members.is_empty(),
            moved: (region.offset, length) != (old.ring_offset, old.ring_length),
            waits: false,
            shares,
            settling,
        })
    }
}

/// A ring that stays where it is.
fn stays(old: &Service, shares: Shares, settling: Option<Settling>) -> Laid {
    Laid {
        offset: old.ring_offset,
        length: old.ring_length,
        members: old.members,
        empty: shares.members.is_empty(),
        moved: false,
        waits: false,
        shares,
        settling,
    }
}

/// How long a silent connection of a service lives.
fn idle(protocol: Protocol, timeouts: &Timeouts) -> Duration {
    let ticks = match protocol {
        Protocol::Tcp => timeouts.established,
        Protocol::Udp => timeouts.udp,
    };
    // Rounded down there, so one tick more.
    Duration::from_millis(Ticks::from_raw(ticks.raw().saturating_add(1)).as_millis())
}

/// Now, as the rings' life counts time.
pub(super) fn moment() -> Moment {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // `clock_gettime` fails only for clocks that do not exist.
    Moment::at(now.map_or(Duration::ZERO, Duration::from))
}
