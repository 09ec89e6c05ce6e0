//! What an agent-check has ordered of a backend, and for how long.
//!
//! Each class of words stands until a word of the same class replaces it, as with HAProxy: an agent that has said `drain`
//! once and then only `up` still wants it drained. All of it stands only while the agent is heard: an agent that has died
//! must not drain its server for ever, so what it ordered ends when its lease does. Pure: moments are arguments.

use std::time::Duration;

use crate::{
    health::Moment,
    probe::agent_check::{self, Admin, Health, Weight},
};

/// The standing orders of one agent.
#[derive(Clone, Debug)]
pub struct Orders {
    lease: Duration,
    heard: Option<Moment>,
    standing: agent_check::Orders,
}

impl Orders {
    /// None yet; what comes stands for `lease` after the agent was last heard.
    pub fn new(lease: Duration) -> Self {
        Self { lease, heard: None, standing: agent_check::Orders::default() }
    }

    /// For how long what is ordered stands.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The agent has spoken. What is new of it, in words that follow the backend's name.
    pub fn take(&mut self, said: agent_check::Orders, now: Moment) -> Vec<String> {
        self.heard = Some(now);
        let mut news = Vec::new();
        for word in said.unknown.iter().filter(|word| !self.standing.unknown.contains(word)) {
            news.push(format!("its agent says {word:?}, which is no word of the protocol"));
        }
        self.standing.unknown = said.unknown;
        let standing = &mut self.standing;
        if replace(&mut standing.admin, said.admin) {
            news.push(format!("its agent orders {}", admin(standing.admin)));
        }
        if replace(&mut standing.weight, said.weight) {
            news.push(match standing.weight {
                Some(Weight::Percent(percent)) => format!("its agent orders {percent} % of its weight"),
                Some(Weight::Exactly(weight)) => format!("its agent orders weight {weight}"),
                None => String::new(),
            });
        }
        if replace(&mut standing.max_connections, said.max_connections) {
            news.push(match standing.max_connections.flatten() {
                Some(most) => format!("its agent orders {most} connections at most"),
                None => "its agent orders no limit of connections".to_owned(),
            });
        }
        if replace(&mut standing.health, said.health) {
            news.push(match &standing.health {
                Some(Health::Down(why)) => format!("its agent says {why}"),
                _ => "its agent says up".to_owned(),
            });
        }
        news
    }

    /// Time has passed; what is to be said if that has ended the orders.
    pub fn expire(&mut self, now: Moment) -> Option<String> {
        let heard = self.heard.filter(|heard| now.since(*heard) >= self.lease)?;
        self.heard = None;
        let silent = now.since(heard).as_secs();
        let had = std::mem::take(&mut self.standing);
        let in_effect = Self { lease: self.lease, heard: None, standing: had }.in_words()?;
        Some(format!("its agent has been silent for {silent} s: its orders end ({in_effect})"))
    }

    /// Whether it lets its server take new connections.
    pub fn takes_new(&self) -> bool {
        !matches!(self.standing.admin, Some(Admin::Drain | Admin::Maint))
    }

    /// The agent's words where it says that its server does not work.
    pub fn down(&self) -> Option<&str> {
        match &self.standing.health {
            Some(Health::Down(why)) => Some(why),
            _ => None,
        }
    }

    /// What becomes of a configured weight. A part of it that is not 0 never rounds to 0, and 0 stays 0.
    pub fn weight(&self, configured: u16) -> u32 {
        let configured = u32::from(configured);
        match self.standing.weight {
            _ if configured == 0 => 0,
            None => configured,
            Some(Weight::Exactly(weight)) => weight,
            Some(Weight::Percent(0)) => 0,
            Some(Weight::Percent(percent)) => (configured * percent / 100).max(1),
        }
    }

    /// What becomes of a configured limit of connections: the lower of the two.
    pub fn limit(&self, configured: Option<u32>) -> Option<u32> {
        let ordered = self.standing.max_connections.flatten();
        configured.into_iter().chain(ordered).min()
    }

    /// What of it keeps connections away or changes their number; `None`: nothing.
    pub fn in_words(&self) -> Option<String> {
        let mut words = Vec::new();
        words.extend(self.down().map(str::to_owned));
        if !self.takes_new() {
            words.push(admin(self.standing.admin).to_owned());
        }
        match self.standing.weight {
            Some(Weight::Percent(percent)) if percent != 100 => {
                words.push(format!("{percent} % of its weight"));
            }
            Some(Weight::Exactly(weight)) => words.push(format!("weight {weight}")),
            _ => {}
        }
        words.extend(
            self.standing.max_connections.flatten().map(|most| format!("{most} connections at most")),
        );
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn admin(admin: Option<Admin>) -> &'static str {
    match admin {
        Some(Admin::Drain) => "drain",
        Some(Admin::Maint) => "maint",
        Some(Admin::Ready) | None => "ready",
    }
}

/// Replaces what stands by what was said, if anything was; whether that is another thing.
fn replace<T: PartialEq>(standing: &mut Option<T>, said: Option<T>) -> bool {
    said.is_some() && std::mem::replace(standing, said) != *standing
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn after(lines: &[&str]) -> Orders {
        let mut orders = Orders::new(LEASE);
        for line in lines {
            orders.take(agent_check::parse(line.as_bytes()), at(0));
        }
        orders
    }

    #[test]
    fn a_class_stands_until_another_word_of_it_comes() {
        // Lines, whether new connections come, weight of 100, limit of 50, and what is down.
        for (lines, takes_new, weight, limit, down) in [
            (&["up"][..], true, 100, 50, None),
            (&["drain", "up 50%"], false, 50, 50, None),
            (&["drain", "ready"], true, 100, 50, None),
            (&["maint"], false, 100, 50, None),
            (&["up 75% maxconn:20"], true, 75, 20, None),
            (&["maxconn:20", "maxconn:0"], true, 100, 50, None),
            (&["maxconn:60"], true, 100, 50, None),
            (&["weight:30", "up"], true, 30, 50, None),
            (&["0%"], true, 0, 50, None),
            (&["200%"], true, 200, 50, None),
            (&["down#disk full", "50%"], true, 50, 50, Some("down: disk full")),
            (&["stopped", "up"], true, 100, 50, None),
        ] {
            let orders = after(lines);
            assert_eq!(orders.takes_new(), takes_new, "{lines:?}");
            assert_eq!(orders.weight(100), weight, "{lines:?}");
            assert_eq!(orders.limit(Some(50)), Some(limit), "{lines:?}");
            assert_eq!(orders.down(), down, "{lines:?}");
        }
    }

    #[test]
    fn a_part_of_a_weight_is_never_nothing_and_nothing_stays_nothing() {
        assert_eq!(after(&["1%"]).weight(10), 1);
        assert_eq!(after(&["weight:7"]).weight(0), 0);
        assert_eq!(after(&["50%"]).weight(0), 0);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut orders = Orders::new(LEASE);
        let mut take = |line: &str| orders.take(agent_check::parse(line.as_bytes()), at(1)).join("; ");
        assert_eq!(
            take("up 100% bogus"),
            concat!(
                r#"its agent says "bogus", which is no word of the protocol; "#,
                "its agent orders 100 % of its weight; its agent says up",
            )
        );
        assert_eq!(take("up 100% bogus"), "");
        assert_eq!(take("drain maxconn:9"), "its agent orders drain; its agent orders 9 connections at most");
        assert_eq!(take("fail#no disk"), "its agent says fail: no disk");
    }

    #[test]
    fn a_silent_agents_orders_end_with_its_lease_and_each_answer_renews_it() {
        let mut orders = after(&["drain 50%"]);
        assert_eq!(orders.expire(at(29)), None);
        orders.take(agent_check::parse(b"up"), at(29));
        assert_eq!(orders.expire(at(58)), None);
        assert!(!orders.takes_new());
        let said = orders.expire(at(59));
        let wanted = "its agent has been silent for 30 s: its orders end (drain, 50 % of its weight)";
        assert_eq!(said.as_deref(), Some(wanted));
        assert!(orders.takes_new());
        assert_eq!((orders.weight(100), orders.expire(at(100))), (100, None));
        // Orders that changed nothing end without a word.
        assert_eq!(after(&["up ready 100%"]).expire(at(31)), None);
    }
}
