//! What is counted: connections, packets, bytes.

/// Connections of a (service, backend) pair, of a server or of a service.
/// Live = opened − closed − closed by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections that won a record. Written by the kernel.
    pub opened: u64,
    /// Connections whose end the kernel saw. Written by the kernel.
    pub closed: u64,
    /// Connections that the agent ended (expiry). Written by the agent.
    pub closed_by_agent: u64,
    /// Live connections at most; 0: no limit. Written by the agent.
    pub limit: u64,
}

impl Account {
    /// Connections alive. The words are read one after the other, so the difference may be behind by what happens
    /// meanwhile; it is never negative for long, and zero then.
    #[inline(always)]
    pub const fn live(&self) -> u64 {
        let live = self.opened.wrapping_sub(self.closed).wrapping_sub(self.closed_by_agent);
        if live > u64::MAX / 2 { 0 } else { live }
    }

    /// Whether it has a limit that leaves no room.
    #[inline(always)]
    pub const fn is_full(&self) -> bool {
        self.limit != 0 && self.live() >= self.limit
    }
}

/// Row of a server's account: connections over all services that use it.
#[inline(always)]
pub const fn server_account(server: u16) -> u32 {
    crate::MAX_BACKENDS + server as u32
}

/// Row of a service's account.
#[inline(always)]
pub const fn service_account(service: u16) -> u32 {
    2 * crate::MAX_BACKENDS + service as u32
}

/// Rows of the map of accounts.
pub const ACCOUNTS: u32 = 2 * crate::MAX_BACKENDS + crate::MAX_SERVICES;

/// Packets and bytes (of IP) of a (service, backend) pair, per CPU. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}
