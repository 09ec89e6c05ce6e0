//! One node of a cluster.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use super::configuration::{self, Copies};
use super::template::Template;
use super::{GaleraOptions, START_LIMIT, SYNCED};
use crate::lab::error::{Context, Error, Result};
use crate::lab::process::last_lines;
use crate::lab::{Host, Process, skip, wait_for};

const EXIT_LIMIT: Duration = Duration::from_secs(30);

/// A `mariadbd` on one host: a node of a Galera cluster, or one of [`Servers`](super::Servers).
#[derive(Debug)]
pub struct GaleraNode {
    host: Host,
    directory: PathBuf,
    process: Mutex<Option<Process>>,
}

impl GaleraNode {
    /// Writes configuration and data, starts nothing.
    pub(super) fn prepare(
        host: &Host,
        members: &[Ipv4Addr],
        options: &GaleraOptions,
        template: &Template,
    ) -> Result<Self> {
        let node = Self::configured(host, members, options)?;
        template.copy_to(&node.directory)?;
        Ok(node)
    }

    /// The same for a server without Galera.
    pub(super) fn prepare_alone(
        host: &Host,
        server: u32,
        options: &GaleraOptions,
        template: &Template,
    ) -> Result<Self> {
        let node = Self::written(host, Copies::Log { server }, options)?;
        template.copy_to(&node.directory)?;
        Ok(node)
    }

    /// Writes the configuration only.
    pub(super) fn configured(host: &Host, members: &[Ipv4Addr], options: &GaleraOptions) -> Result<Self> {
        let missing = || Error::Missing { program: "libgalera_smm.so".to_owned() };
        let library = skip::galera_library().ok_or_else(missing)?;
        Self::written(host, Copies::Galera { members, library: &library }, options)
    }

    fn written(host: &Host, copies: Copies<'_>, options: &GaleraOptions) -> Result<Self> {
        let directory = host.directory().join("db");
        let text = configuration::Node {
            name: host.name(),
            address: host.address(),
            directory: &directory,
            copies,
            options,
        }
        .text();
        fs::create_dir_all(directory.join("tmp"))
            .and_then(|()| fs::write(directory.join("my.cnf"), text))
            .context(|| format!("cannot write to {}", directory.display()))?;
        give_to_mysql(&directory)?;
        give_to_mysql(&directory.join("tmp"))?;
        if options.resolve_names {
            name_the_balancer(host)?;
        }
        Ok(Self { host: host.clone(), directory, process: Mutex::new(None) })
    }

    /// Starts the server and returns at once.
    pub(super) fn launch(&self, arguments: &[&str]) -> Result<()> {
        let missing = || Error::Missing { program: "mariadbd".to_owned() };
        let program = skip::find_program("mariadbd").ok_or_else(missing)?;
        let process = self
            .host
            .command(program)
            .arg(format!("--defaults-file={}", self.directory.join("my.cnf").display()))
            .args(arguments)
            .spawn("mariadbd")?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Starts the server as the first node of a new cluster, whatever it was before, and waits until it is
    /// Synced. For a cluster that has lost all its nodes: choose the one with the last write.
    pub fn bootstrap(&self) -> Result<()> {
        let path = self.directory.join("data/grastate.dat");
        if let Ok(text) = fs::read_to_string(&path) {
            let text = text.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
            fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        }
        self.launch(&["--wsrep-new-cluster"])?;
        self.wait_state(SYNCED, START_LIMIT)
    }

    /// Starts a server that has ended, and waits until it is Synced. After a crash its position is first
    /// recovered from `InnoDB`, as the system's start script does; else it would need a full copy.
    pub fn start_again(&self) -> Result<()> {
        let state = fs::read_to_string(self.directory.join("data/grastate.dat")).unwrap_or_default();
        if state.contains("seqno:   -1") {
            let position = format!("--wsrep_start_position={}", self.recovered_position()?);
            self.launch(&[&position])?;
        } else {
            self.launch(&[])?;
        }
        self.wait_state(SYNCED, START_LIMIT)
    }

    /// Starts a server that has ended without its data, so that `donor` must send all of it by rsync. Returns at once;
    /// the port opens when the data are there.
    pub fn start_empty(&self, donor: &str) -> Result<()> {
        let data = self.directory.join("data");
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir(&data))
            .context(|| format!("cannot empty {}", data.display()))?;
        give_to_mysql(&data)?;
        self.launch(&[&format!("--wsrep_sst_donor={donor}")])
    }

    /// Drops what this node says to its peers and hears from them, and nothing else; `false` ends that.
    pub fn cut_from_group(&self, cut: bool) -> Result<()> {
        self.host.run(&["nft", "flush", "ruleset"])?;
        if cut {
            self.host.run(&["nft", "add", "table", "inet", "lab"])?;
            for (chain, hook) in [("in", "input"), ("out", "output")] {
                let kind = format!("{{ type filter hook {hook} priority 0 ; }}");
                self.host.run(&["nft", "add", "chain", "inet", "lab", chain, &kind])?;
                for end in ["dport", "sport"] {
                    self.host
                        .run(&["nft", "add", "rule", "inet", "lab", chain, "tcp", end, "4567", "drop"])?;
                }
            }
        }
        Ok(())
    }

    /// Lets a state transfer from this node take its time: so many kilobytes a second. Lasts until
    /// [`cut_from_group`](Self::cut_from_group) or the host ends.
    pub fn slow_down_transfers(&self, kbytes: u32) -> Result<()> {
        self.host.run(&["nft", "add", "table", "inet", "slow"])?;
        let kind = "{ type filter hook output priority 0 ; }";
        self.host.run(&["nft", "add", "chain", "inet", "slow", "out", kind])?;
        let rate = kbytes.to_string();
        let rule =
            ["nft", "add", "rule", "inet", "slow", "out", "tcp", "dport", "4444", "limit", "rate", "over"];
        self.host.run(&[&rule[..], &[&rate, "kbytes/second", "drop"]].concat()).map(drop)
    }

    fn recovered_position(&self) -> Result<String> {
        let before = self.log().len();
        self.launch(&["--wsrep-recover"])?;
        if let Some(mut process) = self.process().take() {
            process.wait_exit(EXIT_LIMIT)?;
        }
        let log = self.log();
        let text = log.get(before..).unwrap_or_default();
        text.lines()
            .find_map(|line| line.split_once("Recovered position: "))
            .and_then(|(_, rest)| rest.split([',', ' ']).next())
            .map(str::to_owned)
            .ok_or_else(|| Error::Unreadable { what: "the position".to_owned(), text: last_lines(text, 20) })
    }

    /// The host's name, also `wsrep_node_name`.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host.address(), 3306)
    }

    /// Runs statements as root over the Unix socket: columns parted by tabs, no header.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.command(statements).limit(Duration::from_secs(20)).run()
    }

    /// The same on a thread of its own.
    pub fn detached(&self, statements: &str) -> std::thread::JoinHandle<Result<()>> {
        let command = self.command(statements).limit(Duration::from_mins(1));
        std::thread::spawn(move || command.run().map(drop))
    }

    fn command(&self, statements: &str) -> crate::lab::HostCommand {
        self.host
            .command("mariadb")
            .args(["--no-defaults", "--user=root", "--connect-timeout=3", "-N", "-B"])
            .arg(format!("--socket={}", self.directory.join("sock").display()))
            .args(["-e", statements])
    }

    /// A status variable, if the server answers.
    pub fn status(&self, variable: &str) -> Option<String> {
        let question = format!("SHOW GLOBAL STATUS LIKE '{variable}'");
        let answer = self.sql(&question).ok()?;
        answer.trim_end_matches('\n').split_once('\t').map(|(_, value)| value.to_owned())
    }

    /// `wsrep_local_state`, if the server answers.
    pub fn state(&self) -> Option<u8> {
        self.status("wsrep_local_state")?.parse().ok()
    }

    /// `wsrep_cluster_size`, if the server answers.
    pub fn size(&self) -> Option<usize> {
        self.status("wsrep_cluster_size")?.parse().ok()
    }

    /// Waits until it sees so many members.
    pub fn wait_size(&self, size: usize, timeout: Duration) -> Result<()> {
        let seen = || (self.size() == Some(size)).then_some(());
        wait_for(&format!("{} to see {size} members", self.name()), timeout, seen)
    }

    /// Waits for a state; a server that ends meanwhile is an error with the end of its log.
    pub fn wait_state(&self, state: u8, timeout: Duration) -> Result<()> {
        wait_for(&format!("{} in state {state}", self.name()), timeout, || match self.check_alive() {
            Ok(()) => (self.state() == Some(state)).then_some(Ok(())),
            Err(died) => Some(Err(died)),
        })?
    }

    /// Starts a server without Galera and waits until it answers.
    pub fn start_alone(&self) -> Result<()> {
        self.launch(&[])?;
        self.wait_for_answer()
    }

    pub(super) fn wait_for_answer(&self) -> Result<()> {
        wait_for(&format!("an answer of {}", self.name()), START_LIMIT, || match self.check_alive() {
            Ok(()) => self.sql("SELECT 1").is_ok().then_some(Ok(())),
            Err(died) => Some(Err(died)),
        })?
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        Err(Error::Died { server: self.name().to_owned(), log: last_lines(&self.log(), 30) })
    }

    /// Whether the server's process runs.
    pub fn is_running(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_running)
    }

    /// The server's process, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// SIGKILL; returns when it has ended.
    pub fn kill9(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// An orderly shutdown; returns when it has ended.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        if let Some(mut process) = self.process().take() {
            process.kill(signal)?;
            process.wait_exit(EXIT_LIMIT)?;
        }
        Ok(())
    }

    /// Freezes the process: it still accepts TCP connections and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends the freeze.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.process().as_ref().map_or(Ok(()), |process| process.kill(signal))
    }

    /// The server's log.
    pub fn log(&self) -> String {
        crate::lab::process::read_lossy(&self.host.directory().join("mariadbd.log"))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A panic elsewhere leaves the process as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the balancer a name that leads back to it. Every machine has mounts of its own.
fn name_the_balancer(host: &Host) -> Result<()> {
    let hosts = host.directory().join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{} balancer.lab\n", crate::lab::setup::BALANCER))
        .context(|| format!("cannot write {}", hosts.display()))?;
    host.run(&["mount", "--bind", &hosts.display().to_string(), "/etc/hosts"]).map(drop)
}

/// `MariaDB` refuses to run as root.
pub(super) fn give_to_mysql(path: &Path) -> Result<()> {
    let user = User::from_name("mysql")
        .context(|| "cannot look up the user mysql".to_owned())?
        .ok_or_else(|| Error::Missing { program: "the user mysql (package mariadb-server)".to_owned() })?;
    chown(path, Some(user.uid), Some(user.gid)).context(|| format!("cannot give {} away", path.display()))
}
