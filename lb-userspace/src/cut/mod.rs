//! Cuts: ending connections at once, the silent ones too.
//!
//! A program in XDP speaks only when it is spoken to, and the connection that most needs an end is silent: a page that
//! waits for the answer of a database that has died. The agent makes its socket speak. Asked by a SYN, a socket with an
//! established connection answers with a *challenge ACK* (RFC 5961 section 4; `tcp_validate_incoming` in Linux) that
//! carries the numbers it stands at, whatever the SYN's own number was. The data path answers that ACK, as every other
//! packet of a connection that is being cut, with a RST whose number is the one acknowledged: exactly the one that the
//! socket waits for, and the only one that it obeys (RFC 5961 section 3.2).
//!
//! # Who gets which SYN
//! The *client* opened the connection, so what claims to come from the service is a SYN with ACK, as if the second
//! step of the handshake had been repeated; the *backend* was called, so it gets a plain SYN, as if the first had.
//! Sockets answer both alike. Firewalls do not: Linux's connection tracking lets a SYN pass towards the side that was
//! called and a SYN with ACK towards the side that called, and calls the other two pairings invalid
//! (`tcp_conntracks`, net/netfilter/nf_conntrack_proto_tcp.c), which many hosts drop. What the SYN meets if the
//! connection is not there any more is as harmless: a SYN with ACK gets a RST; a plain SYN may get a SYN with ACK of
//! a listener, which the data path ends by its RST before anybody accepts it.
//!
//! # How often
//! A segment may be lost, so a side that has not answered is asked again at once ([`PATIENCE`]). A Linux socket answers
//! nothing unexpected twice within 500 ms (`tcp_invalid_ratelimit`), so the further questions are longer apart, and
//! [`ATTEMPTS`] in all. A host may also limit its challenge ACKs in all
//! (`tcp_challenge_ack_limit`; older kernels do by themselves, to 100 or 1,000 a second): of more cuts than that towards
//! one host, some need another attempt.
//! [`Cuts::due`] gives out the segments in bounded batches, so the caller chooses the pace.
//!
//! A stack from before RFC 5961 is cut as well: a SYN inside its window resets the connection, one outside is answered
//! by an ACK. Connections signed by TCP-MD5 or TCP-AO are not: their sockets believe nothing that is unsigned.
//!
//! # Direct return
//! In `dsr` and `ipip` the backend's packets do not pass the balancer, so its challenge ACK would be of no use here.
//! There the client is asked first ([`Order::ClientFirst`]), and the sequence number of its answer, which is the one
//! that the backend waits for unless segments were lost or sent twice, becomes the RST that is sent to the backend.
//! Nothing confirms that one, so it is repeated, and the last attempt is a SYN: if the connection is still there,
//! the backend's challenge ACK goes to the client, whose socket has gone, and whose RST, with exact numbers, passes the
//! balancer. If it is not, the RST answers a listener's SYN with ACK. That SYN is also what is left where the client
//! has been told but its numbers are not known, for the event was lost.
//!
//! # What is expected of the data path
//! For a connection marked as cut, until its record expires:
//! 1. A packet with ACK and without RST is answered towards its sender with a RST that has no ACK and whose sequence
//!    number is the packet's acknowledgement number. This includes a SYN with ACK. A packet without ACK (a client's new
//!    SYN on the same tuple) is a new connection's and judged afresh.
//! 2. Such an answer marks that side as told; so does a RST that the side itself sends.
//! 3. It is told as an event, before anything is rewritten: the connection, the side, the packet's sequence and
//!    acknowledgement number. Needed for the client's side in `dsr` and `ipip`; welcome elsewhere, for it spares the
//!    wait for the next sweep. An event may be lost, the marks may not.
//! 4. In `dsr` and `ipip`, a RST from the client is passed on to the backend, but does not mark the backend as told:
//!    it may be the answer to the agent's SYN, with a number that the backend does not obey. In `snat` and `dnat` a RST
//!    of either side goes no further, for the same reason: the other side is asked itself.
//! 5. The next hops, sources and VLAN tags of both sides can be read from the connection's record.
//!
//! The agent's own segments leave by a packet socket: they meet neither XDP nor the firewall of this host.
//!
//! The caller marks the connection as cut *before* it begins the cut here, or the challenge ACK is forwarded to the
//! other end, which ignores it. It tells [`Cuts`] what each sweep finds ([`Cuts::told`]) and what events say
//! ([`Cuts::answered`]). A side that stayed silent is not lost: whatever it says while the record lasts is answered
//! with a RST all the same.

mod machine;
pub mod segment;
pub mod sender;

pub use machine::{
    ATTEMPTS, Connection, Cuts, Ended, Numbers, Order, Outcome, PATIENCE, Side, Target, Towards,
};
pub use segment::{Frame, Hop, Segment, Tunnel, Tuple};
pub use sender::{SendError, Sender, Sent};

#[cfg(test)]
mod stack_tests;
#[cfg(test)]
mod testing;
