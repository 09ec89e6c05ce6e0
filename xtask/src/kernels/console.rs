//! What the machine's console says: which tests ran and how they ended, the verifier's figures, and whether the
//! machine came to its end at all.
//!
//! `init.sh` writes lines that begin with [`MARK`]; libtest writes its own; the tests of the packet tables write
//! `NAME: N instructions verified` for each variant of a program, and `bytes of stack: {"NAME": N, …}`.

use std::{collections::BTreeMap, fmt};

use crate::summary::Summary;

/// How init's lines begin.
const MARK: &str = "lb-kernels: ";

/// All that a console told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What `uname -r` says; empty if the machine never came so far.
    pub release: String,
    /// Tests passed, failed and skipped.
    pub summary: Summary,
    /// Instructions that the verifier looked at, by variant of the program.
    pub instructions: BTreeMap<String, u32>,
    /// Bytes of stack, by program and function.
    pub stack: BTreeMap<String, u32>,
    /// What went wrong, in words.
    pub problems: Vec<String>,
    /// What the kernel complained about without coming to harm.
    pub complaints: Vec<String>,
}

impl Report {
    /// Reads a console's output.
    pub fn read(console: &str) -> Self {
        let (mut report, mut running, mut ended) = (Self::default(), None, false);
        for line in console.lines().map(|line| line.trim_end_matches('\r')) {
            if line.contains("Kernel panic - not syncing") {
                report.problems.push(line.trim_start_matches(|at: char| at != 'K').to_owned());
            } else if let Some(said) = line.strip_prefix(MARK) {
                ended |= said == "done";
                report.heed(said, &mut running);
            } else {
                report.instructions.extend(parse_instructions(line));
                report.stack.extend(parse_stack(line));
            }
        }
        report.summary.add(&console.replace('\r', ""));
        if let Some(test) = running {
            report.problems.push(format!("{test} did not come to its end"));
        }
        if !ended {
            report.problems.push("the machine did not come to its end".to_owned());
        } else if report.problems.is_empty() && (report.instructions.is_empty() || report.stack.is_empty()) {
            report.problems.push("the tests did not say what the verifier found".to_owned());
        }
        report
    }

    /// Takes in one of init's lines.
    fn heed(&mut self, said: &str, running: &mut Option<String>) {
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "release" => rest.clone_into(&mut self.release),
            "begin" => *running = Some(rest.to_owned()),
            "end" => {
                *running = None;
                if let Some((test, status)) = rest.rsplit_once(' ').filter(|(_, status)| *status != "0") {
                    self.problems.push(format!("{test} ended with status {status}"));
                }
            }
            "broken:" => self.problems.push(rest.to_owned()),
            "kernel" => self.complaints.push(rest.trim_start_matches("said: ").to_owned()),
            _ => {}
        }
    }

    /// The most instructions of any variant.
    pub fn most_instructions(&self) -> Option<u32> {
        self.instructions.values().copied().max()
    }

    /// The most stack of any program or function.
    pub fn most_stack(&self) -> Option<u32> {
        self.stack.values().copied().max()
    }
}

/// The verifier's figures, one line each for instructions and stack.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |figures: &BTreeMap<String, u32>| {
            let figures: Vec<String> =
                figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
            figures.join(", ")
        };
        writeln!(out, "   instructions verified: {}", list(&self.instructions))?;
        write!(out, "   bytes of stack: {}", list(&self.stack))
    }
}

/// Reads `NAME: N instructions verified`, with libtest's `test … ... ` before it or not.
fn parse_instructions(line: &str) -> Option<(String, u32)> {
    let (name, count) = after_test(line).strip_suffix(" instructions verified")?.rsplit_once(": ")?;
    Some((name.to_owned(), count.parse().ok()?))
}

/// Reads `bytes of stack: {"NAME": N, …}`; what uses none is left out.
fn parse_stack(line: &str) -> Vec<(String, u32)> {
    let Some(list) = after_test(line).strip_prefix("bytes of stack: ") else { return Vec::new() };
    let pairs = list.trim_matches(['{', '}']).split(", ").filter_map(|pair| {
        let (name, bytes) = pair.rsplit_once(": ")?;
        Some((name.trim_matches('"').to_owned(), bytes.parse().ok()?))
    });
    pairs.filter(|(_, bytes)| *bytes > 0).collect()
}

/// A line without libtest's announcement of the test that wrote it.
fn after_test(line: &str) -> &str {
    line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")).map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\x1bc\x1b[?7lSeaBIOS\r\nBooting from ROM...\r\n\
        lb-kernels: release 6.1.0-56-cloud-amd64\n\
        lb-kernels: begin root_packets\n\nrunning 4 tests\n\
        test every_case_holds_in_the_kernel ... ok\n\
        test stack ... bytes of stack: {\"lb\": 336, \"memcpy\": 0, \"lb_draw\": 40}\nok\n\
        test cost ... complete: 65449 instructions verified\nmake whole: 69170 instructions verified\nok\n\
        test frames ... SKIPPED: frames: no live frames before 5.18\nok\n\n\
        test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 60.00s\n\n\n\
        lb-kernels: end root_packets 0\n\
        lb-kernels: kernel said: [   12.5] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\n\
        lb-kernels: done\n[   62.6] reboot: Power down\n";

    #[test]
    fn console_of_a_machine_that_ended_gives_results_and_figures() {
        let report = Report::read(CONSOLE);
        assert_eq!(report.release, "6.1.0-56-cloud-amd64");
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(report.complaints, ["[   12.5] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1"]);
        assert_eq!(report.summary.to_string(), "3 passed, 0 failed, 1 skipped");
        assert_eq!((report.most_instructions(), report.most_stack()), (Some(69170), Some(336)));
        assert_eq!(
            report.to_string(),
            "   instructions verified: complete 65449, make whole 69170\n   bytes of stack: lb 336, lb_draw 40"
        );
    }

    #[test]
    fn serial_line_endings_change_nothing() {
        assert_eq!(Report::read(&CONSOLE.replace("\r\n", "\n").replace('\n', "\r\n")), Report::read(CONSOLE));
    }

    #[test]
    fn machine_that_did_not_come_to_its_end_has_problems() {
        let until = |mark: &str| CONSOLE.split_once(mark).unwrap().0.to_owned();
        let panic = "[    3.1] Kernel panic - not syncing: Fatal exception in interrupt\n";
        let no_end = "the machine did not come to its end";
        let table = [
            (String::new(), vec![no_end]),
            (until("lb-kernels: done"), vec![no_end]),
            (until("lb-kernels: end"), vec!["root_packets did not come to its end", no_end]),
            (
                until("lb-kernels: end") + panic,
                vec![
                    "Kernel panic - not syncing: Fatal exception in interrupt",
                    "root_packets did not come to its end",
                    no_end,
                ],
            ),
            (
                CONSOLE.replace("root_packets 0", "root_packets 101"),
                vec!["root_packets ended with status 101"],
            ),
            (
                CONSOLE.replace("instructions verified", "instructions"),
                vec!["the tests did not say what the verifier found"],
            ),
            (
                format!("lb-kernels: broken: module veth.ko does not load\n{CONSOLE}"),
                vec!["module veth.ko does not load"],
            ),
        ];
        for (console, want) in table {
            assert_eq!(Report::read(&console).problems, want, "{console}");
        }
    }
}
