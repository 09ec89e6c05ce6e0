//! `cargo xtask bench`: set-up, build as the invoking user, then a measurement as root.

use anyhow::Result;

use crate::demo;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Two PHP nodes of which one is slow, or a Galera cluster that runs out of connections.
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Php,
    Galera,
}

/// Sets up and builds, then becomes the measurement: ctrl-C, the table on standard output and the exit code are its own.
/// Returns only if that fails.
pub fn bench(options: &Options) -> Result<()> {
    let what = match options.what {
        What::Php => "php",
        What::Galera => "galera",
    };
    demo::build_and_become("lb-bench", &[what])
}
