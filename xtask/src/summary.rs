//! What the output of test binaries says: which tests passed, failed and were skipped, and with which reasons.
//!
//! A test that cannot run on a machine prints `SKIPPED: <test>: <reason>` and returns; libtest counts it as passed, and
//! here it is counted as skipped. A test that is ignored in the source counts as skipped with that reason.

use std::{collections::BTreeSet, fmt};

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// The test, as it names itself.
    pub test: String,
    /// Its reason.
    pub reason: String,
}

/// The sum over all test binaries so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tests that libtest counted as passed, with those that said that they skipped themselves.
    returned: usize,
    failed: usize,
    /// Tests that skipped themselves; a set, since a test may say it on both of its outputs.
    skipped: BTreeSet<Skip>,
    ignored: Vec<Skip>,
}

impl Summary {
    /// Takes in the output of one test binary and tells whether it came to its end: libtest prints one result line.
    pub fn add(&mut self, output: &str) -> bool {
        let mut ended = false;
        for line in output.lines() {
            if let Some(skip) = parse_skip(line) {
                self.skipped.insert(skip);
            } else if let Some(skip) = parse_ignored(line) {
                self.ignored.push(skip);
            } else if let Some((passed, failed)) = parse_result(line) {
                self.returned += passed;
                self.failed += failed;
                ended = true;
            }
        }
        ended
    }

    /// All tests that did not run.
    pub fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.skipped.iter().chain(&self.ignored)
    }

    /// The skips that a list of allowed ones does not name.
    pub fn not_allowed(&self, allowed: &str) -> Vec<&Skip> {
        let allowed: BTreeSet<&str> = allowed
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .collect();
        self.skips().filter(|skip| !allowed.contains(skip.test.as_str())).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.returned.saturating_sub(self.skipped.len());
        let skipped = self.skipped.len() + self.ignored.len();
        write!(out, "{passed} passed, {} failed, {skipped} skipped", self.failed)
    }
}

/// Reads `SKIPPED: <test>: <reason>`; a test's name may hold `::`, but no colon followed by a space.
fn parse_skip(line: &str) -> Option<Skip> {
    // With `--nocapture` the harness has already written `test name ... ` on this line.
    let at = line.find("SKIPPED: ")?;
    let (test, reason) = line[at..].strip_prefix("SKIPPED: ")?.split_once(": ")?;
    Some(Skip { test: test.trim().to_owned(), reason: reason.trim().to_owned() })
}

/// Reads `test <test> ... ignored, <reason>`.
fn parse_ignored(line: &str) -> Option<Skip> {
    let (test, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ignored")?;
    let reason = outcome.strip_prefix(", ").unwrap_or("ignored in the source");
    Some(Skip { test: test.to_owned(), reason: reason.to_owned() })
}

/// Reads `test result: ok. 9 passed; 0 failed; …`.
fn parse_result(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(name))?;
        part.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 4 tests\n\
        test web::requests_are_balanced ... ok\n\
        test web::SKIPPED: web::mtu_is_kept: no vlan devices: CONFIG_VLAN_8021Q is off\n\
        test db::old ... ignored, needs MySQL 5.6\n\
        SKIPPED: web::mtu_is_kept: no vlan devices: CONFIG_VLAN_8021Q is off\n\
        test db::writer_fails_over ... FAILED\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";

    #[test]
    fn skipped_tests_are_counted_once_and_not_as_passed() {
        let mut summary = Summary::default();
        assert!(summary.add(OUTPUT));
        assert_eq!(summary.to_string(), "1 passed, 1 failed, 2 skipped");
        assert!(summary.add("test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n"));
        assert_eq!(summary.to_string(), "41 passed, 1 failed, 2 skipped");
        let skips: Vec<_> = summary.skips().map(|skip| (skip.test.as_str(), skip.reason.as_str())).collect();
        assert_eq!(
            skips,
            [
                ("web::mtu_is_kept", "no vlan devices: CONFIG_VLAN_8021Q is off"),
                ("db::old", "needs MySQL 5.6"),
            ]
        );
    }

    #[test]
    fn binary_that_died_has_no_result() {
        for output in ["", "running 3 tests\ntest a ... ok\n", "thread panicked\ntest result: soon\n"] {
            let mut summary = Summary::default();
            assert!(!summary.add(output), "{output:?}");
            assert_eq!(summary, Summary::default());
        }
    }

    #[test]
    fn only_skips_on_the_committed_list_are_allowed() {
        let mut summary = Summary::default();
        summary.add(OUTPUT);
        let table = [
            ("", vec!["web::mtu_is_kept", "db::old"]),
            ("# why\nweb::mtu_is_kept # no such devices\n", vec!["db::old"]),
            ("db::old\n\nweb::mtu_is_kept\nnever::seen\n", vec![]),
            ("#db::old\nweb::mtu\n", vec!["web::mtu_is_kept", "db::old"]),
        ];
        for (allowed, want) in table {
            let got: Vec<_> = summary.not_allowed(allowed).iter().map(|skip| skip.test.as_str()).collect();
            assert_eq!(got, want, "{allowed:?}");
        }
    }
}
