//! What is full in the data path, said in words and not more than once a minute.

use std::{net::SocketAddr, time::Duration};

use lb_common::Reason;

use crate::{health::Moment, listen};

/// The least time between two lines about the same thing.
const EVERY: Duration = Duration::from_mins(1);

/// What was said of late.
#[derive(Debug, Default)]
pub struct Pressure {
    said: Vec<(Reason, Moment)>,
}

impl Pressure {
    /// A connection of `service` to `backend` found no room; the line to log, if one is due.
    pub fn heard(
        &mut self,
        reason: Reason,
        service: &str,
        backend: Option<SocketAddr>,
        now: Moment,
    ) -> Option<String> {
        let text = sentence(reason, backend)?;
        self.said.retain(|(_, at)| now.since(*at) < EVERY);
        if self.said.iter().any(|(said, _)| *said == reason) {
            return None;
        }
        self.said.push((reason, now));
        Some(format!("{service}: {text}"))
    }
}

/// What is full, and what to type; `None` for what is no lack of room.
fn sentence(reason: Reason, backend: Option<SocketAddr>) -> Option<String> {
    const MORE_FLOWS: &str = "raise `max-flows` in the configuration, then `lb detach` and start again";
    Some(match reason {
        Reason::FlowTableFull => {
            format!("the flow table is full, new connections are refused; {MORE_FLOWS}")
        }
        Reason::NotRecorded => format!(
            "the flow table is full, new connections are forwarded but not remembered, and may break when backends change; {MORE_FLOWS}"
        ),
        Reason::PortsExhausted => format!(
            "no source port towards {} is free, new connections are refused; name another address of this host in `sources`",
            backend.map_or_else(|| "a backend".to_owned(), listen::server)
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_is_full_is_said_once_a_minute_and_with_what_to_type() {
        let backend = Some("10.0.0.1:80".parse().unwrap());
        let mut pressure = Pressure::default();
        for (second, reason, words) in [
            (0, Reason::PortsExhausted, Some("web: no source port towards 10.0.0.1:80 is free")),
            (1, Reason::PortsExhausted, None),
            (2, Reason::FlowTableFull, Some("web: the flow table is full, new connections are refused")),
            (59, Reason::PortsExhausted, None),
            (60, Reason::PortsExhausted, Some("name another address of this host in `sources`")),
            (61, Reason::FlowTableFull, None),
            (61, Reason::NotRecorded, Some("forwarded but not remembered")),
            (62, Reason::FlowTableFull, Some("raise `max-flows`")),
            (63, Reason::BackendGone, None),
        ] {
            let said = pressure.heard(reason, "web", backend, Moment::at(Duration::from_secs(second)));
            assert_eq!(said.is_some(), words.is_some(), "{reason:?} after {second} s: {said:?}");
            assert!(said.unwrap_or_default().contains(words.unwrap_or_default()), "{reason:?}, {second} s");
        }
    }
}
