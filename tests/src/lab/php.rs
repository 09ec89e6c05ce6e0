//! A PHP application server: nginx on port 80 and PHP-FPM on port 9000.
//!
//! | path | answer |
//! | --- | --- |
//! | `/static` | the node's name, by nginx alone |
//! | `/id.php` | the node's name |
//! | `/ping`, `/status` | PHP-FPM's own pages, through the pool |
//! | `/sleep.php?s=1.5` | after that many seconds |
//! | `/work.php` | the node's name, after the node's work time ([`PhpNode::set_work`]); `?burn=1` uses the CPU |
//! | `/db.php?h=ADDRESS&p=PORT` | one row written and read back, as JSON ([`DbAnswer`]); `ct`, `rt`: time-outs in s; `sleep`: what the server does first, in s |

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::error::{Context, Error, Result};
use super::machine::children_of;
use super::process::{self, send};
use super::{Host, Process, http, skip, wait_for};

/// Where PHP-FPM listens for `FastCGI`.
pub const FPM_PORT: u16 = 9000;
/// Where PHP-FPM answers `/status` and `/ping` by a process of its own, also when all workers are busy.
pub const STATUS_PORT: u16 = 9001;

const START_LIMIT: Duration = Duration::from_secs(10);

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct PhpOptions {
    /// Workers of the static pool: the number of pages served at a time.
    pub children: u32,
    /// Whether FPM also answers on [`STATUS_PORT`] (`pm.status_listen`).
    pub status_listen: bool,
    /// Length of FPM's listen queue.
    pub backlog: u32,
    /// Requests that nginx serves on one connection.
    pub keepalive_requests: u32,
    /// How long nginx keeps an idle connection.
    pub keepalive_timeout: Duration,
    /// What `/work.php` takes at first.
    pub work: Duration,
}

impl Default for PhpOptions {
    fn default() -> Self {
        Self {
            children: 4,
            status_listen: true,
            backlog: 511,
            keepalive_requests: 1_000_000,
            keepalive_timeout: Duration::from_secs(75),
            work: Duration::from_millis(10),
        }
    }
}

/// The answer of `/db.php`. The first group is there if it succeeded (200), the second if not (503).
#[derive(Debug, Clone, Deserialize)]
pub struct DbAnswer {
    /// The row's number.
    pub id: Option<u64>,
    /// What was read back.
    pub value: Option<String>,
    /// Whether that is what was written.
    #[serde(default)]
    pub ok: bool,
    /// `@@wsrep_node_name` of the node that served it.
    pub node: Option<String>,
    /// The PHP node.
    pub web: Option<String>,
    /// Until the connection stood, in ms.
    pub connect_ms: Option<f64>,
    /// The whole, in ms.
    pub ms: f64,
    /// `connect`, `sleep`, `insert` or `select`.
    pub step: Option<String>,
    /// `MySQL`'s error number.
    pub errno: Option<u32>,
    /// `MySQL`'s error text.
    pub error: Option<String>,
}

/// The text of a page of a node as a [`DbAnswer`].
pub fn db_answer(body: &str) -> Result<DbAnswer> {
    serde_json::from_str(body).map_err(|error| Error::Unreadable {
        what: format!("the answer of db.php ({error})"),
        text: body.to_owned(),
    })
}

/// nginx and PHP-FPM on one host.
#[derive(Debug)]
pub struct PhpNode {
    host: Host,
    directory: PathBuf,
    fpm_program: PathBuf,
    fpm: Process,
    nginx: Process,
}

impl PhpNode {
    /// Starts both and waits until a page is served.
    pub fn start(host: &Host, options: &PhpOptions) -> Result<Self> {
        let fpm_program = skip::php_fpm().ok_or_else(|| Error::Missing { program: "php-fpm".to_owned() })?;
        let directory = host.directory().join("php");
        write_files(&directory, host, options)
            .context(|| format!("cannot write to {}", directory.display()))?;
        let fpm = start_fpm(host, &fpm_program, &directory)?;
        let nginx = start_nginx(host, &directory)?;
        let mut node = Self { host: host.clone(), directory, fpm_program, fpm, nginx };
        node.set_work(options.work)?;
        node.wait_until_served()?;
        Ok(node)
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where nginx listens.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host.address(), 80)
    }

    /// What `/work.php` takes from the next request on.
    pub fn set_work(&self, work: Duration) -> Result<()> {
        let (path, new) = (self.directory.join("www/work"), self.directory.join("work.new"));
        fs::write(&new, work.as_micros().to_string())
            .and_then(|()| fs::rename(&new, &path))
            .context(|| format!("cannot write {}", path.display()))
    }

    /// All processes of nginx and FPM that run, masters first.
    pub fn pids(&self) -> Vec<u32> {
        let masters = [self.nginx.pid(), self.fpm.pid()];
        let workers = masters.iter().flat_map(|master| children_of(*master));
        masters.into_iter().chain(workers).filter(|pid| process::is_running(*pid)).collect()
    }

    /// SIGKILL for all processes of nginx and FPM; returns when none is left.
    pub fn kill_all(&mut self) -> Result<()> {
        kill_tree(&mut self.nginx)?;
        kill_tree(&mut self.fpm)
    }

    /// SIGKILL for all processes of FPM, behind a living nginx.
    pub fn kill_fpm(&mut self) -> Result<()> {
        kill_tree(&mut self.fpm)
    }

    /// Starts what has been killed, and waits until a page is served.
    pub fn restart(&mut self) -> Result<()> {
        if !self.fpm.is_running() {
            self.fpm = start_fpm(&self.host, &self.fpm_program, &self.directory)?;
        }
        if !self.nginx.is_running() {
            self.nginx = start_nginx(&self.host, &self.directory)?;
        }
        self.wait_until_served()
    }

    /// The logs of both.
    pub fn log(&self) -> String {
        format!("{}{}", self.fpm.log(), self.nginx.log())
    }

    fn wait_until_served(&mut self) -> Result<()> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
        let what = format!("a page of {}", self.host.name());
        let served = wait_for(&what, START_LIMIT, || {
            if !self.fpm.is_running() || !self.nginx.is_running() {
                return Some(false);
            }
            let answer = self.host.enter(|| http::Client::default().get(address, "/id.php"));
            answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200)).then_some(true)
        })?;
        if served {
            return Ok(());
        }
        Err(Error::Died { server: self.host.name().to_owned(), log: process::last_lines(&self.log(), 20) })
    }
}

impl Drop for PhpNode {
    fn drop(&mut self) {
        // Workers would live on until the host ends.
        let _ = self.kill_all();
    }
}

/// Stops the master first, so that it starts no worker that the list of its children does not have.
fn kill_tree(master: &mut Process) -> Result<()> {
    if !master.is_running() {
        return Ok(());
    }
    master.kill(Signal::SIGSTOP)?;
    let workers = children_of(master.pid());
    for pid in workers.iter().copied().chain([master.pid()]) {
        send(pid, Signal::SIGKILL)?;
    }
    let limit = Duration::from_secs(10);
    master.wait_exit(limit)?;
    wait_for("the end of all workers", limit, || {
        workers.iter().all(|pid| !process::is_running(*pid)).then_some(())
    })
}

fn start_fpm(host: &Host, program: &Path, directory: &Path) -> Result<Process> {
    // Without the system's php.ini, so that a node is the same on every machine.
    host.command(program)
        .args(["-n", "-d", "extension=mysqlnd", "-d", "extension=mysqli", "-F", "-y"])
        .arg(directory.join("fpm.conf"))
        .spawn("php-fpm")
}

fn start_nginx(host: &Host, directory: &Path) -> Result<Process> {
    let program =
        skip::find_program("nginx").ok_or_else(|| Error::Missing { program: "nginx".to_owned() })?;
    host.command(program)
        .args(["-e", "stderr", "-g", "daemon off;", "-c"])
        .arg(directory.join("nginx.conf"))
        .spawn("nginx")
}

fn write_files(directory: &Path, host: &Host, options: &PhpOptions) -> std::io::Result<()> {
    let www = directory.join("www");
    fs::create_dir_all(&www)?;
    fs::create_dir_all(directory.join("tmp"))?;
    for (name, page) in [
        ("db.php", include_str!("pages/db.php")),
        ("id.php", include_str!("pages/id.php")),
        ("sleep.php", include_str!("pages/sleep.php")),
        ("work.php", include_str!("pages/work.php")),
    ] {
        fs::write(www.join(name), page)?;
    }
    fs::write(directory.join("fpm.conf"), fpm_configuration(directory, options))?;
    fs::write(directory.join("nginx.conf"), nginx_configuration(directory, host, options))
}

fn fpm_configuration(directory: &Path, options: &PhpOptions) -> String {
    let directory = directory.display();
    let PhpOptions { children, backlog, .. } = options;
    let status = if options.status_listen {
        format!("pm.status_listen = 0.0.0.0:{STATUS_PORT}\n")
    } else {
        String::new()
    };
    format!(
        "[global]
pid = {directory}/fpm.pid
error_log = {directory}/fpm.log
daemonize = no
[www]
user = www-data
group = www-data
listen = 0.0.0.0:{FPM_PORT}
listen.backlog = {backlog}
pm = static
pm.max_children = {children}
pm.status_path = /status
{status}ping.path = /ping
ping.response = pong
request_terminate_timeout = 90
clear_env = no
catch_workers_output = yes
"
    )
}

fn nginx_configuration(directory: &Path, host: &Host, options: &PhpOptions) -> String {
    let (name, directory) = (host.name(), directory.display());
    let requests = options.keepalive_requests;
    let idle = options.keepalive_timeout.as_secs();
    let fastcgi = format!(
        "fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param SCRIPT_NAME $fastcgi_script_name;
      fastcgi_param REQUEST_URI $request_uri;
      fastcgi_param SERVER_PROTOCOL $server_protocol;
      fastcgi_param REMOTE_ADDR $remote_addr;
      fastcgi_param REMOTE_PORT $remote_port;
      fastcgi_param SERVER_ADDR $server_addr;
      fastcgi_param SERVER_NAME {name};
      fastcgi_pass 127.0.0.1:{FPM_PORT};
      fastcgi_connect_timeout 5;
      fastcgi_read_timeout 90;"
    );
    format!(
        "user www-data;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
worker_rlimit_nofile 16384;
http {{
  access_log off;
  client_body_temp_path {directory}/tmp/b; proxy_temp_path {directory}/tmp/p;
  fastcgi_temp_path {directory}/tmp/f; uwsgi_temp_path {directory}/tmp/u; scgi_temp_path {directory}/tmp/s;
  keepalive_requests {requests};
  keepalive_timeout {idle}s;
  server {{
    listen 80 default_server reuseport backlog=4096;
    listen [::]:80 default_server ipv6only=on reuseport backlog=4096;
    root {directory}/www;
    location = /static {{ default_type text/plain; return 200 \"{name}\\n\"; }}
    location ~ ^/(status|ping)$ {{
      fastcgi_param SCRIPT_FILENAME $fastcgi_script_name;
      {fastcgi}
    }}
    location ~ \\.php$ {{
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      {fastcgi}
    }}
  }}
}}
"
    )
}
