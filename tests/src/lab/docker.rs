//! A Docker daemon in a host: its own data, its own network, images without a registry.
//!
//! The host's file systems hide the control groups, which the daemon needs; they are mounted again. Control groups are
//! the machine's own all the same, so the daemon's lie under a name that nobody else has, and are removed with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{Context, Error, Result};
use super::process::last_lines;
use super::skip::find_program;
use super::{Host, HostCommand, Process, wait_for};

/// A daemon that is busy, on a machine that is.
const LIMIT: Duration = Duration::from_mins(1);

/// Mounts the control groups as the machine has them: one hierarchy (version 2), or one for each controller.
const MOUNT: &str = r#"
[ -z "$(ls /sys/fs/cgroup)" ] || exit 0
if ! grep -qv "^0::" /proc/self/cgroup; then
    exec mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t tmpfs cgroup /sys/fs/cgroup
while IFS=: read -r number controllers path; do
    [ -n "$controllers" ] || continue
    mkdir "/sys/fs/cgroup/${controllers#name=}"
    mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/${controllers#name=}"
done < /proc/self/cgroup
"#;

/// Removes the control groups of that name; where the daemon was no longer there to end its containers, these first.
const REMOVE: &str = r#"
find /sys/fs/cgroup -path "*/$1/*/cgroup.procs" -exec cat {} + | sort -u | xargs -r kill -9
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$1*" -delete 2>/dev/null && break
    sleep 0.1
done
"#;

/// A daemon. Dropping it ends its containers too.
#[derive(Debug)]
pub struct Docker {
    host: Host,
    socket: PathBuf,
    groups: String,
    daemon: Process,
}

impl Docker {
    /// Starts a daemon, and makes the image `box` of busybox, with these of its programs by their names.
    pub fn start(host: &Host, programs: &[&str]) -> Result<Self> {
        host.run(&["sh", "-ec", MOUNT])?;
        let socket = host.directory().join("d.sock");
        let groups = format!("lb-lab-{}-{}", std::process::id(), host.name());
        let daemon = spawn(host, &socket, &groups)?;
        let docker = Self { host: host.clone(), socket, groups, daemon };
        docker.wait_ready()?;
        docker.import(programs)?;
        Ok(docker)
    }

    fn import(&self, programs: &[&str]) -> Result<()> {
        let busybox =
            find_program("busybox").ok_or_else(|| Error::Missing { program: "busybox".to_owned() })?;
        let image = self.host.directory().join("image");
        let make = || {
            fs::create_dir_all(image.join("bin"))?;
            fs::copy(busybox, image.join("bin/busybox"))?;
            programs.iter().try_for_each(|program| symlink("busybox", image.join("bin").join(program)))
        };
        make().context(|| format!("cannot fill {}", image.display()))?;
        let tar = self.host.directory().join("image.tar").display().to_string();
        self.host.run(&["tar", "-C", &image.display().to_string(), "-cf", &tar, "."])?;
        self.run(&["import", &tar, "box"]).map(drop)
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Docker's command line.
    pub fn command(&self, arguments: &[&str]) -> HostCommand {
        let at = format!("unix://{}", self.socket.display());
        self.host.command("docker").env("DOCKER_HOST", at).args(arguments).limit(LIMIT)
    }

    /// Runs a command of it to its end; what it says.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.command(arguments).run().map(|output| output.trim().to_owned())
    }

    /// The address of a container in its one network.
    pub fn address(&self, container: &str) -> Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.run(&["inspect", "--format", format, container])
    }

    /// Ends the daemon in order: its containers are stopped.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop(LIMIT).map(drop)
    }

    /// Kills the daemon; its containers run on.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill(Signal::SIGKILL)?;
        self.daemon.wait_exit(LIMIT).map(drop)
    }

    /// Starts it again.
    pub fn restart(&mut self) -> Result<()> {
        // A daemon that was killed leaves its number, and that of its containerd, which dies with it and may stay a
        // zombie for a while: the new one would take both for alive.
        let own = self.host.directory().join("pid").display().to_string();
        self.host.run(&["rm", "-f", &own, "/run/docker/containerd/containerd.pid"])?;
        self.daemon = spawn(&self.host, &self.socket, &self.groups)?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        wait_for("dockerd", LIMIT, || self.run(&["info"]).ok().map(drop)).map_err(|_| Error::Died {
            server: "dockerd".to_owned(),
            log: last_lines(&self.daemon.log(), 30),
        })
    }
}

fn spawn(host: &Host, socket: &Path, groups: &str) -> Result<Process> {
    let at = |name: &str| host.directory().join(name).display().to_string();
    host.command("dockerd")
        .args(["--storage-driver", "vfs", "--iptables=false", "--ip6tables=false"])
        .args(["--cgroup-parent", groups, "--host", &format!("unix://{}", socket.display())])
        .args(["--data-root".to_owned(), at("data"), "--pidfile".to_owned(), at("pid")])
        // The sockets below this one have long names, and 107 bytes for them.
        .args(["--exec-root", "/run/docker"])
        .spawn("dockerd")
}

impl Drop for Docker {
    fn drop(&mut self) {
        // An orderly end takes mounts and control groups with it, but for the one that holds them all.
        let _ = self.stop();
        let _ = self.host.run(&["sh", "-c", REMOVE, "sh", &self.groups]);
    }
}
