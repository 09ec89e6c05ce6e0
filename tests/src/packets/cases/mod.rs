//! The tables of cases, by what they are about.

mod absence;
mod algorithms;
mod checksums;
mod closing;
mod crowding;
mod cuts;
mod datagrams;
mod events;
mod foreign;
mod limits;
mod malformed;
mod messages;
mod modes;
mod naming;
mod opening;
mod parts;
mod ports;
mod pressure;
mod refusing;
mod sizes;
mod slots;

use super::Case;

/// All cases, each in its families.
pub fn all() -> Vec<Case> {
    let tables = [
        opening::cases(),
        algorithms::cases(),
        closing::cases(),
        refusing::cases(),
        ports::cases(),
        foreign::cases(),
        malformed::cases(),
        checksums::cases(),
        modes::cases(),
        datagrams::cases(),
        naming::cases(),
        parts::cases(),
        messages::cases(),
        sizes::cases(),
        pressure::cases(),
        crowding::cases(),
        slots::cases(),
        limits::cases(),
        cuts::cases(),
        events::cases(),
        absence::cases(),
    ];
    tables.into_iter().flatten().flat_map(Case::in_its_families).collect()
}
