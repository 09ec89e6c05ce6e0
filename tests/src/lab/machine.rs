//! One machine of the lab: a set of namespaces (network, mount, process, host name, IPC) that lives exactly
//! as long as the process that made it.
//!
//! Process 1 of the namespace is a `cat` that reads a pipe whose only writing end is ours. When we end, in
//! whatever way, the kernel closes our end, `cat` sees the end of its input and exits, the kernel kills
//! every process of that namespace with it (`pid_namespaces(7)`), and with the last process go the mounts
//! and the network devices. No path names these namespaces and no process is looked up by name. A
//! parent-death signal would do less: it is bound to the *thread* that started the child.
//!
//! Within a machine /proc and /sys show its own processes and devices, /run and /sys/fs/bpf are empty file
//! systems of its own, and what it writes to /var/lib lies over the real one, in memory (where the kernel
//! has no overlay file system, /var/lib is empty): sockets, pinned maps and state vanish with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::{Context, Error, Result};

/// What process 1 does before it waits for our end. It ignores SIGCHLD so that the kernel reaps orphans.
const SETUP: &str = r#"
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mkdir /run/.upper /run/.work
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/.upper,workdir=/run/.work overlay /var/lib 2>/dev/null ||
    mount -t tmpfs tmpfs /var/lib
echo "$1" > /proc/sys/kernel/hostname
ip link set lo up
trap "" CHLD
echo ready
exec cat > /dev/null
"#;

/// A set of namespaces. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Machine {
    keeper: Child,
    init: u32,
    network: File,
    mounts: File,
    processes: File,
    names: File,
    ipc: File,
}

impl Machine {
    /// Makes the namespaces and brings `lo` up.
    pub fn new(name: &str) -> Result<Self> {
        let mut keeper = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--"])
            .args(["sh", "-ec", SETUP, "sh", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| "cannot start unshare".to_owned())?;
        match Self::opened(&mut keeper) {
            Ok((init, [network, mounts, processes, names, ipc])) => {
                Ok(Self { keeper, init, network, mounts, processes, names, ipc })
            }
            Err(error) => {
                // The end of its input ends it, unless it has ended already.
                drop(keeper.stdin.take());
                let output = keeper.wait_with_output().context(|| format!("after: {error}"))?;
                Err(Error::Command {
                    command: format!("unshare, for the machine {name}"),
                    status: output.status.to_string(),
                    stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                })
            }
        }
    }

    /// Waits until process 1 is ready; its number as seen from here, and its namespaces.
    fn opened(keeper: &mut Child) -> Result<(u32, [File; 5])> {
        let unready =
            || Error::Unreadable { what: "ready".to_owned(), text: "the machine's output".to_owned() };
        let mut line = String::new();
        let stdout = keeper.stdout.take().ok_or_else(unready)?;
        BufReader::new(stdout).read_line(&mut line).context(|| "cannot read from a machine".to_owned())?;
        if line != "ready\n" {
            return Err(unready());
        }
        let init = *children_of(keeper.id()).first().ok_or_else(unready)?;
        let open = |kind: &str| {
            let path = format!("/proc/{init}/ns/{kind}");
            File::open(&path).context(|| format!("cannot open {path}"))
        };
        Ok((init, [open("net")?, open("mnt")?, open("pid")?, open("uts")?, open("ipc")?]))
    }

    /// The number of process 1, as seen from here; `nsenter --target N --all` enters the machine.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// The machine's root directory as seen from here, for what lies on mounts of its own (/run, /sys).
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    /// Puts the calling thread into the network namespace only: it still may start threads (they are in it
    /// too) and sees the files that we see. For sockets made by tests.
    pub fn join_network(&self) -> Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)
            .context(|| "cannot enter a network namespace".to_owned())
    }

    /// Puts the calling thread into all namespaces. Such a thread can start processes but no threads.
    fn join_all(&self) -> Result<()> {
        // A thread that shares its working directory with others may not change its mount namespace.
        unshare(CloneFlags::CLONE_FS).context(|| "cannot unshare the working directory".to_owned())?;
        for (file, kind) in [
            (&self.ipc, CloneFlags::CLONE_NEWIPC),
            (&self.names, CloneFlags::CLONE_NEWUTS),
            (&self.network, CloneFlags::CLONE_NEWNET),
            (&self.processes, CloneFlags::CLONE_NEWPID),
            (&self.mounts, CloneFlags::CLONE_NEWNS),
        ] {
            setns(file, kind).context(|| format!("cannot enter a namespace ({kind:?})"))?;
        }
        Ok(())
    }

    /// Runs `task` on a thread of its own inside the network namespace. A panic in it is passed on.
    pub fn enter<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| joined(scope.spawn(|| self.join_network().map(|()| task())).join()))
    }

    /// Starts a process in all namespaces. It is our own child, so its number and its end are exact.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let start = || {
            self.join_all()?;
            command.spawn().context(|| format!("cannot start {command:?}"))
        };
        thread::scope(|scope| joined(scope.spawn(start).join()))
    }

    /// Runs a program that sees our processes and files, but the machine's network.
    pub fn run_outside(&self, command: &[&str]) -> Result<String> {
        let line = command.join(" ");
        let (program, arguments) =
            command.split_first().ok_or_else(|| Error::Missing { program: "a command".to_owned() })?;
        let output = self
            .enter(|| Command::new(program).args(arguments).stdin(Stdio::null()).output())?
            .context(|| format!("cannot start {line}"))?;
        if !output.status.success() {
            return Err(Error::Command {
                command: line,
                status: output.status.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `ip` in the network namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.run_outside(&[&["ip"], arguments].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The value of a thread that has ended, or its panic.
pub(crate) fn joined<T>(outcome: thread::Result<T>) -> T {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits for a thread and passes its panic on.
pub(crate) fn join<T>(handle: JoinHandle<T>) -> T {
    joined(handle.join())
}

/// The children of a process, as `/proc/PID/task/*/children` lists them.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
