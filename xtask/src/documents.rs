//! The commands that the documents show are commands of this program.

use std::fs;

use clap::Parser as _;

use crate::{Arguments, process::workspace};

/// `cargo xtask …` as it stands in a document, up to the end of the line or of the quotation.
fn shown(document: &str) -> Vec<String> {
    let text = document.lines().flat_map(|line| line.split("cargo xtask ").skip(1));
    let commands = text.map(|rest| rest.split(['`', '#', '(', ',', '…']).next().unwrap_or_default().trim());
    commands.filter(|command| !command.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_xtask_command_that_a_document_shows_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let path = workspace().join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for command in shown(&text) {
            let typed = ["cargo xtask"].into_iter().chain(command.split_whitespace());
            if let Err(error) = Arguments::try_parse_from(typed) {
                panic!("{document}: cargo xtask {command}: {error}");
            }
        }
    }
}

#[test]
fn commands_are_found_in_blocks_and_in_running_text() {
    let text = "```console\n$ cargo xtask demo --keep\n```\n`cargo xtask setup` or `cargo xtask …`, not `cargo build`\n";
    assert_eq!(shown(text), ["demo --keep", "setup"]);
}
