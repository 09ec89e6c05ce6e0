//! The balancer: the real `lb` on a host, as an operator runs it.

use std::fs;
use std::io::{BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

pub use lb_userspace::api::{
    BackendState, BackendStatus, ClusterStatus, NodeReadiness, NodeStatus, ServiceStatus, Status,
};
use nix::sys::signal::Signal;

use super::command::Output;
use super::error::{Context, Error, Result};
use super::{Host, HostCommand, Process, http, process, wait_for};

/// How long the agent may take until it has judged every backend, or until it has ended.
const LIMIT: Duration = Duration::from_secs(20);
const LOG: &str = "lb";

/// An agent on a host, with the configuration that it runs. Dropping it kills the agent and detaches.
#[derive(Debug)]
pub struct Balancer {
    host: Host,
    instance: String,
    configuration: PathBuf,
    arguments: Vec<String>,
    agent: Option<Process>,
}

/// The program `lb`: `LB_BIN`, or what cargo has built beside the test.
pub fn program() -> PathBuf {
    std::env::var_os("LB_BIN").map_or_else(
        || {
            let test = std::env::current_exe().unwrap_or_default();
            // target/debug/deps/test-0123456789abcdef
            test.ancestors().nth(2).unwrap_or(Path::new(".")).join("lb")
        },
        PathBuf::from,
    )
}

/// `lb` of the instance `lb` on a host, with arguments.
pub fn lb(host: &Host, arguments: &[&str]) -> HostCommand {
    host.command(program()).args(arguments)
}

/// Writes `lb.toml` and the monitor's password, `db.pw`, into the host's directory.
pub fn write_configuration(host: &Host, text: &str) -> Result<PathBuf> {
    let path = host.directory().join("lb.toml");
    fs::write(host.directory().join("db.pw"), "mon\n")
        .and_then(|()| fs::write(&path, text))
        .context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Puts the addresses of the configuration's services on `eth0`, those that are not there yet.
pub fn add_service_addresses(host: &Host, text: &str) -> Result<()> {
    let present = host.run(&["ip", "-o", "address", "show", "dev", "eth0"])?;
    let mut added: Vec<IpAddr> = Vec::new();
    for address in text.lines().filter_map(service_address) {
        if !added.contains(&address) && !present.contains(&format!(" {address}/")) {
            host.add_service_address(address, "eth0")?;
            added.push(address);
        }
    }
    Ok(())
}

/// The address in a line `address = "[fd00:77::100]:80-89/tcp"`. Only the address of a service names its protocol.
fn service_address(line: &str) -> Option<IpAddr> {
    let (written, _) =
        line.trim().strip_prefix("address")?.trim_start().strip_prefix("= \"")?.split_once('"')?;
    let endpoint = written.strip_suffix("/tcp").or_else(|| written.strip_suffix("/udp"))?;
    let (address, _) = endpoint.rsplit_once(':')?;
    address.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

impl Balancer {
    /// Starts `lb run` with this configuration and more arguments, and returns when every backend has been
    /// judged. The service addresses are put on `eth0` first.
    pub fn start(host: &Host, configuration: &str, arguments: &[&str]) -> Result<Self> {
        let balancer = Self::launch(host, configuration, arguments)?;
        balancer.wait_judged()?;
        Ok(balancer)
    }

    /// The same, but returns as soon as the agent answers.
    pub fn launch(host: &Host, configuration: &str, arguments: &[&str]) -> Result<Self> {
        add_service_addresses(host, configuration)?;
        let mut balancer = Self {
            host: host.clone(),
            instance: "lb".to_owned(),
            configuration: write_configuration(host, configuration)?,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            agent: None,
        };
        balancer.spawn()?;
        Ok(balancer)
    }

    fn spawn(&mut self) -> Result<()> {
        let agent = self
            .host
            .command(program())
            .args(["--instance", &self.instance, "run", "--config"])
            .arg(&self.configuration)
            .args(&self.arguments)
            .spawn(LOG)?;
        let pid = agent.pid();
        self.agent = Some(agent);
        wait_for("an answer of the agent", LIMIT, || {
            if !process::is_running(pid) {
                let log = process::last_lines(&self.log(), 30);
                return Some(Err(Error::Died { server: "lb".to_owned(), log }));
            }
            self.status().is_ok().then_some(Ok(()))
        })?
    }

    /// Waits until no backend and no node is unknown any more, and those that are up have a weight and a way.
    pub fn wait_judged(&self) -> Result<Status> {
        self.wait(is_judged, "every backend to be judged", LIMIT)
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// The agent's own answer, read from its socket without a program in between.
    pub fn status(&self) -> Result<Status> {
        let socket = self.host.root().join(format!("run/{}/lb.sock", self.instance));
        let ask = || -> std::io::Result<UnixStream> {
            let mut stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")?;
            Ok(stream)
        };
        let stream = ask().context(|| format!("cannot ask {}", socket.display()))?;
        let unreadable = |text: String| Error::Unreadable { what: "the agent's status".to_owned(), text };
        let (code, body, _) =
            http::read_answer(&mut BufReader::new(stream)).map_err(|error| unreadable(error.to_string()))?;
        let body = String::from_utf8_lossy(&body);
        if code != 200 {
            return Err(unreadable(format!("status {code}: {body}")));
        }
        serde_json::from_str(&body).map_err(|error| unreadable(format!("{error}: {body}")))
    }

    /// Waits until the status is as wanted, and returns it. The error shows the last status and the log.
    pub fn wait(&self, condition: impl Fn(&Status) -> bool, what: &str, timeout: Duration) -> Result<Status> {
        let mut last = String::new();
        let waited = wait_for(what, timeout, || match self.status() {
            Ok(status) if condition(&status) => Some(status),
            Ok(status) => {
                last = format!("{status:#?}");
                None
            }
            Err(error) => {
                last = error.to_string();
                None
            }
        });
        waited.map_err(|error| Error::Unreadable {
            what: error.to_string(),
            text: format!("{last}\n{}", process::last_lines(&self.log(), 40)),
        })
    }

    /// Runs `lb` on the balancer's host to its end, whatever that is.
    pub fn run_lb(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output()
    }

    /// `lb` of this instance, to be run or spawned.
    pub fn command(&self, arguments: &[&str]) -> HostCommand {
        self.host.command(program()).args(["--instance", &self.instance]).args(arguments)
    }

    /// The agent's process as seen from the test; nothing when it has been ended.
    pub fn pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Process::pid)
    }

    /// Whether the agent's process runs.
    pub fn is_running(&self) -> bool {
        self.agent.as_ref().is_some_and(Process::is_running)
    }

    /// SIGKILL for the agent; returns when it has ended. The program keeps forwarding.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGKILL)
    }

    /// SIGTERM for the agent; returns when it has ended. The program keeps forwarding.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let missing = || Error::Missing { program: "a running agent".to_owned() };
        let mut agent = self.agent.take().ok_or_else(missing)?;
        agent.kill(signal)?;
        agent.wait_exit(LIMIT)
    }

    /// Waits until the agent has ended by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let missing = || Error::Missing { program: "a running agent".to_owned() };
        self.agent.as_mut().ok_or_else(missing)?.wait_exit(timeout)
    }

    /// Starts the agent again, terminating the one that runs, and waits until it answers and has judged.
    pub fn restart(&mut self) -> Result<()> {
        if self.is_running() {
            self.terminate()?;
        }
        self.spawn()?;
        self.wait_judged().map(drop)
    }

    /// `lb detach`, which must succeed.
    pub fn detach(&self) -> Result<String> {
        self.command(&["detach"]).run()
    }

    /// What all agents of this host have logged.
    pub fn log(&self) -> String {
        process::read_lossy(&self.host.directory().join(format!("{LOG}.log")))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // A panicking test shows what the agent thought of it.
        if std::thread::panicking() {
            eprintln!("the agent's log ends:\n{}", process::last_lines(&self.log(), 60));
        }
        self.agent = None;
        let _ = self.detach();
    }
}

/// Every backend has been judged, and those that are up can be given connections.
fn is_judged(status: &Status) -> bool {
    let backend = |backend: &BackendStatus| match backend.state {
        BackendState::Unknown => false,
        BackendState::Up => backend.weight_effective > 0.0 && backend.next_hop.contains(" via "),
        BackendState::Down | BackendState::Draining | BackendState::Maintenance => true,
    };
    let service = |service: &ServiceStatus| service.cluster.is_some() || service.backends.iter().all(backend);
    let cluster = |cluster: &ClusterStatus| {
        let known = cluster.nodes.iter().all(|node| node.readiness != NodeReadiness::Unknown);
        known && (cluster.writer.is_some() || !cluster.nodes.iter().any(is_ready))
    };
    status.services.iter().all(service) && status.clusters.iter().all(cluster)
}

fn is_ready(node: &NodeStatus) -> bool {
    node.readiness == NodeReadiness::Ready
}

/// Short ways to what tests ask a [`Status`] for. A name that is not there is the test's mistake, so they
/// panic.
pub trait Look {
    /// A service by name.
    fn service(&self, name: &str) -> &ServiceStatus;

    /// A backend by SERVICE/BACKEND.
    fn backend(&self, name: &str) -> &BackendStatus;
}

impl Look for Status {
    fn service(&self, name: &str) -> &ServiceStatus {
        let found = self.services.iter().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("no service {name} in {self:?}"))
    }

    fn backend(&self, name: &str) -> &BackendStatus {
        let (service, backend) = name.split_once('/').unwrap_or((name, ""));
        let found = self.service(service).backends.iter().find(|found| found.name == backend);
        found.unwrap_or_else(|| panic!("no backend {name} in {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_service_is_read_in_all_its_forms() {
        for (line, address) in [
            ("address = \"10.77.0.100:80/tcp\"", Some("10.77.0.100")),
            ("address = \"[fd00:77::100]:8000-8099/udp\"", Some("fd00:77::100")),
            ("address = \"10.77.0.100:*/tcp\"", Some("10.77.0.100")),
            ("  { name = \"web1\", address = \"10.77.0.21:80\" },", None),
            ("address = \"10.77.0.21:80\"", None),
        ] {
            assert_eq!(service_address(line), address.map(|address| address.parse().unwrap()), "{line}");
        }
    }
}
