//! `cargo xtask …`: orchestration, one file per subcommand. Everything here runs other programs; nothing here knows
//! how they do their work.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod bpf_linker;
mod demo;
#[cfg(test)]
mod documents;
mod fuzz;
mod kernels;
mod lanes;
mod packages;
mod process;
mod setup;
mod summary;
mod tee;
mod test;
mod toolchain;

/// Set-up and tests of `lb`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what `lb` is for, on real servers: a table, and whether it says what is promised.
    Bench(bench::Options),
    /// Show it at work: real PHP and Galera nodes, a slow one, a dead one.
    Demo(demo::Options),
    /// Feed the data path with inputs that a fuzzer makes.
    Fuzz(fuzz::Options),
    /// Run the tests in other kernels, on virtual machines that are emulated.
    Kernels(kernels::Options),
    /// Find or install all that building, demo and tests need.
    Setup {
        /// Only say what is missing, and fail if anything is.
        #[arg(long)]
        check: bool,
    },
    /// Run every check: set-up, format, lints, unit tests, tests in the kernel and end to end.
    Test(test::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Bench(options) => bench::bench(&options),
        Task::Demo(options) => demo::demo(&options),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::Kernels(options) => kernels::kernels(&options),
        Task::Setup { check } => setup::setup(check),
        Task::Test(options) => return test::test(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
