//! Where a connection's phase is kept, a port cell or a slot of the flow table, and the accounts that follow it.

use lb_common::{
    Address, Ticks,
    abi::{Service, server_account, service_account},
    cell::Owner,
};

use crate::Tables;

/// Tries to move a phase while other CPUs do: a connection has one packet each way in flight at most times.
pub const SWAPS: u32 = 3;

/// Where a connection's phase is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// In a port cell (`snat`).
    Cell(u32),
    /// In a slot of the flow table (the other modes).
    Slot(u32),
}

impl Seat {
    /// The owner word.
    #[inline(always)]
    pub fn owner<A: Address, T: Tables<A>>(self, tables: &T) -> Option<Owner> {
        match self {
            Self::Cell(index) => tables.holder(index).map(|(owner, _)| owner),
            Self::Slot(slot) => tables.flow_owner(slot),
        }
    }

    /// Replace it if it is still `before`; whether it was.
    #[inline(always)]
    pub fn swap<A: Address, T: Tables<A>>(self, before: Owner, after: Owner, tables: &T) -> bool {
        match self {
            Self::Cell(index) => tables.swap_owner(index, before, after),
            Self::Slot(slot) => tables.swap_flow(slot, before, after),
        }
    }

    /// Stamp it.
    #[inline(always)]
    pub fn touch<A: Address, T: Tables<A>>(self, now: Ticks, tables: &T) {
        match self {
            Self::Cell(index) => tables.touch_cell(index, now),
            Self::Slot(slot) => tables.touch_flow(slot, now),
        }
    }

    /// Record the server's sequence number.
    #[inline(always)]
    pub fn answer<A: Address, T: Tables<A>>(self, server_isn: u32, tables: &T) {
        match self {
            Self::Cell(index) => tables.answer_cell(index, server_isn),
            Self::Slot(slot) => tables.answer_flow(slot, server_isn),
        }
    }
}

/// Keep the accounts of a connection that has changed between live and not: only for who won the swap.
#[inline(always)]
pub fn settle<A: Address, T: Tables<A>>(before: Owner, after: Owner, backend: u16, tables: &T) {
    if before.is_live() && !after.is_live() {
        tables.close(backend);
    } else if !before.is_live() && after.is_live() {
        tables.open(backend);
    }
}

/// One more connection of a (service, backend) pair, whatever the limits say: it lives already.
#[inline(always)]
pub fn open<A: Address, T: Tables<A>>(backend: u16, tables: &T) {
    tables.open_account(u32::from(backend));
    if let Some(pair) = tables.backend(backend) {
        if pair.server != 0 {
            tables.open_account(server_account(pair.server));
        }
        tables.open_account(service_account(pair.service));
    }
}

/// One connection of a (service, backend) pair less.
#[inline(always)]
pub fn close<A: Address, T: Tables<A>>(backend: u16, tables: &T) {
    tables.close_account(u32::from(backend));
    if let Some(pair) = tables.backend(backend) {
        if pair.server != 0 {
            tables.close_account(server_account(pair.server));
        }
        tables.close_account(service_account(pair.service));
    }
}

/// What a new connection was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its service.
    Service,
    /// The backend.
    Backend,
}

/// Count a new connection of a (service, backend) pair, if all limits leave room.
#[inline(always)]
pub fn reserve<A: Address, T: Tables<A>>(
    service: &Service,
    backend: u16,
    server: u16,
    tables: &T,
) -> Result<(), Full> {
    if !tables.try_open_account(service_account(service.id)) {
        return Err(Full::Service);
    }
    if server != 0 && !tables.try_open_account(server_account(server)) {
        tables.close_account(service_account(service.id));
        return Err(Full::Backend);
    }
    tables.open_account(u32::from(backend));
    Ok(())
}
