//! A pattern of interfaces' names, for those that come and go: `veth*`.

use std::fmt;

use super::value::{Fault, interface};

/// A name with at least one `*`, each of which stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern; what is between the stars must be part of an interface's name.
    ///
    /// Errors: what no interface is called, and what every interface is.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fixed: String = text.split('*').collect();
        if fixed.is_empty() {
            let wrong = format!("`{text}` is every interface, `lo` too");
            return Err(Fault::new(wrong, r#"begin it as those do that shall be taken: "veth*""#));
        }
        // `.` alone is part of a name, though it is none.
        interface(if fixed.chars().all(|c| c == '.') { "veth" } else { &fixed }).map_err(
            |Fault { right, .. }| {
                Fault::new(format!("`{}` matches no interface", text.escape_debug()), right)
            },
        )?;
        Ok(Self(text.to_owned()))
    }

    /// Whether an interface's name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let (first, last) = (parts.next().unwrap_or(""), parts.next_back().unwrap_or(""));
        let Some(rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
            return false;
        };
        let mut rest = rest;
        parts.all(|part| match rest.find(part) {
            Some(place) => {
                rest = &rest[place + part.len()..];
                true
            }
            None => false,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, yes, no) in [
            ("veth*", "veth veth0 veth1a2b3c4", "vet eth0 xveth"),
            ("*-lb", "a-lb -lb", "lb a-lb0"),
            ("br-*.1*", "br-.1 br-a.10 br-a.1.1", "br-1 br-a.2"),
            ("a*a", "aa aba", "a ab"),
            ("**x", "x ax", "a"),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            for name in yes.split_whitespace() {
                assert!(parsed.matches(name), "{pattern} {name}");
            }
            for name in no.split_whitespace() {
                assert!(!parsed.matches(name), "{pattern} {name}");
            }
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn patterns_of_no_interface_or_of_all_are_refused() {
        for (text, wrong) in [
            ("*", "is every interface"),
            ("**", "is every interface"),
            ("ve th*", "matches no interface"),
            ("a/*", "matches no interface"),
            ("averylongprefixof*", "matches no interface"),
        ] {
            let fault = Pattern::parse(text).unwrap_err();
            assert!(fault.wrong.contains(wrong) && !fault.right.is_empty(), "{fault}");
        }
    }
}
