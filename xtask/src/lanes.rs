//! Test programs run beside each other, for most of them wait most of the time; those that measure time run alone.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    process,
    summary::Summary,
    tee::{self, Show},
    test::{Binary, seconds},
};

/// The longest that one test program may take, far above what any of them needs.
const LONGEST: Duration = Duration::from_mins(20);

/// The test programs that a package's manifest lists under `package.metadata.tests.alone`.
pub fn alone() -> Result<BTreeSet<String>> {
    let metadata =
        process::cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let names = packages.filter_map(|package| package["metadata"]["tests"]["alone"].as_array()).flatten();
    Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Runs `at_once` test programs at a time, then those that are to be alone, one after the other; all of them, even if one
/// fails, to show everything that is broken.
pub fn run_all(
    binaries: &[Binary],
    (at_once, alone): (usize, &BTreeSet<String>),
    command: impl Fn(&Binary) -> Command + Sync,
    shown: bool,
    summary: &mut Summary,
) -> Result<()> {
    let (last, first): (Vec<&Binary>, Vec<&Binary>) =
        binaries.iter().partition(|binary| alone.contains(&binary.name));
    let (summary, failed) = (Mutex::new(summary), Mutex::new(Vec::new()));
    let lane = |queue: &Mutex<std::vec::IntoIter<&Binary>>| {
        while let Some(binary) = next(queue) {
            let show = if shown { Show::TestsOf(&binary.name) } else { Show::Nothing };
            if let Err(error) = record(&binary.name, &mut command(binary), show, &summary) {
                println!("   {error:#}");
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(binary.name.clone());
            }
        }
    };
    for (lanes, binaries) in [(at_once.max(1), first), (1, last)] {
        let queue = Mutex::new(binaries.into_iter());
        thread::scope(|scope| {
            for _ in 0..lanes {
                scope.spawn(|| lane(&queue));
            }
        });
    }
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        bail!("failed in: {}", failed.join(", "));
    }
    Ok(())
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// Runs one test program and adds its results to the sum; on failure all that it wrote is shown.
pub fn record(
    name: &str,
    command: &mut Command,
    show: Show<'_>,
    summary: &Mutex<&mut Summary>,
) -> Result<()> {
    let started = Instant::now();
    let ran = tee::run(command, show, LONGEST)?;
    let ended = summary.lock().unwrap_or_else(PoisonError::into_inner).add(&ran.output);
    if ran.succeeded && ended {
        println!("   {name}: {}", seconds(started.elapsed()));
        return Ok(());
    }
    println!("{}", ran.output);
    if !ended {
        bail!("{name} ended without a result ({})", ran.outcome);
    }
    bail!("{name}: {}", ran.outcome)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn programs(names: &[&str]) -> Vec<Binary> {
        let named = |name: &&str| Binary {
            package: PathBuf::new(),
            name: (*name).to_owned(),
            program: PathBuf::new(),
        };
        names.iter().map(named).collect()
    }

    /// A program that passes one test, or fails it, while it holds a folder that nobody else may hold.
    fn holder(folder: &str, passes: bool) -> Command {
        let mut shell = Command::new("sh");
        let result = if passes { "ok. 1 passed; 0 failed" } else { "FAILED. 0 passed; 1 failed" };
        let end = format!("echo 'test result: {result}; 0 ignored; 0 measured; 0 filtered out'");
        let script = format!("mkdir {folder} || exit 9; sleep 0.2; rmdir {folder}; {end}; {passes}");
        shell.args(["-c", &script]);
        shell
    }

    #[test]
    fn programs_that_are_to_be_alone_never_run_beside_another() {
        let folder = std::env::temp_dir().join(format!("lanes-{}", std::process::id()));
        let all = programs(&["one", "two", "three", "four"]);
        let alone: BTreeSet<String> = ["one", "two", "three", "four"].map(str::to_owned).into();
        let mut summary = Summary::default();
        let path = folder.display().to_string();
        run_all(&all, (4, &alone), |_| holder(&path, true), false, &mut summary).unwrap();
        assert_eq!(summary.to_string(), "4 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn others_run_beside_each_other_and_each_failure_is_named() {
        let folder = |name: &str| {
            std::env::temp_dir().join(format!("lanes-{}-{name}", std::process::id())).display().to_string()
        };
        let all = programs(&["one", "two", "three", "four"]);
        let mut summary = Summary::default();
        let command = |binary: &Binary| holder(&folder(&binary.name), binary.name.starts_with('o'));
        let error =
            run_all(&all, (4, &BTreeSet::new()), command, false, &mut summary).unwrap_err().to_string();
        let mut failed: Vec<&str> = error.strip_prefix("failed in: ").unwrap().split(", ").collect();
        failed.sort_unstable();
        assert_eq!(failed, ["four", "three", "two"]);
        assert_eq!(summary.to_string(), "1 passed, 3 failed, 0 skipped");
    }
}
