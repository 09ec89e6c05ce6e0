//! The agent-check: a small program beside a server says in one line what it wants of the balancer. HAProxy's protocol
//! (its configuration manual, "agent-check"; `tcpcheck` and `check.c` there).
//!
//! A line is words in any order, between blanks or commas, of four classes; of each class the last word counts:
//! - what the administrator wants: `ready`, `drain`, `maint`
//! - the weight: `75%` of the configured one, or `weight:50` in its stead
//! - the most connections: `maxconn:40`; 0 for no limit of the agent's
//! - health: `up`, or `down`, `stopped`, `fail`, with a reason behind `#` as in `down#disk full`
//!
//! Words that are not known are told and do no harm.

use std::net::SocketAddr;
use std::time::Duration;

use super::peer::Peer;
use super::{Failure, FailureKind, printable};

/// The longest line; HAProxy reads no more either.
const LONGEST: usize = 1024;
/// The greatest percentage and the greatest weight that are believed; more is as much.
const MOST_WEIGHT: u32 = 1_000;

/// What an agent wants. `None`: it says nothing about that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Whether connections are given at all.
    pub admin: Option<Admin>,
    /// How many of them.
    pub weight: Option<Weight>,
    /// Connections at most; `Some(None)`: as many as the configuration says.
    pub max_connections: Option<Option<u32>>,
    /// Whether the server works.
    pub health: Option<Health>,
    /// Words that are none of these, made printable.
    pub unknown: Vec<String>,
}

/// What the administrator of the server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// New connections.
    Ready,
    /// No new ones, and the old ones may finish.
    Drain,
    /// No new ones, for the server is being worked on.
    Maint,
}

/// The weight that a server should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// So much of the configured one.
    Percent(u32),
    /// This one.
    Exactly(u32),
}

/// What the agent thinks of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It works, as far as the agent knows; probes may know better.
    Up,
    /// It does not; the agent's word and its reason, if it gave one.
    Down(String),
}

/// Asks an agent: connects, reads a line, closes. It is asked nothing, and says its line by itself.
pub async fn ask(addr: SocketAddr, timeout: Duration) -> Result<Orders, Failure> {
    let peer = Peer::new(addr, timeout);
    let mut stream = peer.connect().await?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && !line.contains(&b'\r') {
        if line.len() >= LONGEST {
            let what = format!("is no agent: its first line is longer than {LONGEST} bytes");
            return Err(peer.failure(FailureKind::TooLarge, what));
        }
        if peer.read_some(&mut stream, &mut line).await? == 0 {
            break;
        }
    }
    let orders = parse(&line);
    if orders == (Orders { unknown: orders.unknown.clone(), ..Orders::default() }) {
        let said = printable(&line);
        let what = match said.as_str() {
            "" => "is no agent: it said nothing".to_owned(),
            said => format!("is no agent: it said {said:?}"),
        };
        return Err(peer.failure(FailureKind::BadAnswer, what));
    }
    Ok(orders)
}

/// Reads the first line of what an agent said.
pub fn parse(said: &[u8]) -> Orders {
    let line = said.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let (words, reason) = match line.iter().position(|&byte| byte == b'#') {
        Some(at) => (&line[..at], printable(&line[at + 1..])),
        None => (line, String::new()),
    };
    let mut orders = Orders::default();
    for word in words.split(|byte| matches!(byte, b' ' | b'\t' | b',')).filter(|word| !word.is_empty()) {
        let word = String::from_utf8_lossy(word).to_ascii_lowercase();
        if !orders.take(&word, &reason) {
            orders.unknown.push(printable(word.as_bytes()));
        }
    }
    orders
}

impl Orders {
    /// Takes in one word, in small letters; false if it is none.
    fn take(&mut self, word: &str, reason: &str) -> bool {
        match word {
            "ready" => self.admin = Some(Admin::Ready),
            "drain" => self.admin = Some(Admin::Drain),
            "maint" => self.admin = Some(Admin::Maint),
            "up" => self.health = Some(Health::Up),
            "down" | "stopped" | "fail" => {
                let said = if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
                self.health = Some(Health::Down(said));
            }
            _ => return self.take_number(word),
        }
        true
    }

    fn take_number(&mut self, word: &str) -> bool {
        if let Some(percent) = word.strip_suffix('%').and_then(number) {
            self.weight = Some(Weight::Percent(percent.min(MOST_WEIGHT)));
        } else if let Some(weight) = word.strip_prefix("weight:").and_then(number) {
            self.weight = Some(Weight::Exactly(weight.min(MOST_WEIGHT)));
        } else if let Some(most) = word.strip_prefix("maxconn:").and_then(number) {
            self.max_connections = Some((most > 0).then_some(most));
        } else {
            return false;
        }
        true
    }
}

/// A number of digits only; one that does not fit is the greatest that does.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "agent_check_tests.rs"]
mod tests;
