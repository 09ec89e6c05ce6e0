//! What the operator wants of a backend or a node beside the configuration: drains, maintenance, weights.
//!
//! Wishes go by name, so that they survive reload and restart, and an address that changes.

use crate::{api::Weight, health::Admin};

use super::state::State;

/// What is wanted of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whether it may take new connections.
    pub admin: Admin,
    /// What it weighs, if not what the configuration says.
    pub weight: Option<Weight>,
}

impl State {
    /// What is wanted of `owner/member`.
    pub fn wish(&self, owner: &str, member: &str) -> Wish {
        let name = format!("{owner}/{member}");
        let admin = if self.maintenance.contains(&name) {
            Admin::Maintenance
        } else if self.drained.contains(&name) {
            Admin::Drain
        } else {
            Admin::Ready
        };
        Wish { admin, weight: self.weights.get(&name).copied() }
    }

    /// Forget the wishes for those that nobody knows; their names.
    pub fn forget(&mut self, is_known: impl Fn(&str) -> bool) -> Vec<String> {
        let named = self.drained.iter().chain(&self.maintenance).chain(self.weights.keys());
        let mut gone: Vec<String> = named.filter(|name| !is_known(name)).cloned().collect();
        gone.sort();
        gone.dedup();
        for name in &gone {
            self.drained.remove(name);
            self.maintenance.remove(name);
            self.weights.remove(name);
            self.deadlines.remove(name);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_found_by_name_and_forgotten_with_it() {
        let mut state = State::default();
        state.drained.insert("web/web1".into());
        state.maintenance.insert("web/web1".into());
        state.drained.insert("web/web2".into());
        state.weights.insert("web/web3".into(), Weight::Percent(50));
        let wish = |admin, weight| Wish { admin, weight };
        for (member, wanted) in [
            ("web1", wish(Admin::Maintenance, None)),
            ("web2", wish(Admin::Drain, None)),
            ("web3", wish(Admin::Ready, Some(Weight::Percent(50)))),
            ("web4", Wish::default()),
        ] {
            assert_eq!(state.wish("web", member), wanted, "{member}");
        }
        assert_eq!(state.forget(|name| name == "web/web2"), ["web/web1", "web/web3"]);
        assert_eq!(state.wish("web", "web1"), Wish::default());
        assert_eq!(state.wish("web", "web2"), wish(Admin::Drain, None));
    }
}
