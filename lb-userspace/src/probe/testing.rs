//! Servers for the probes' tests: ones that lie, and real ones. All on 127.0.0.1, all gone when dropped.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Failure;
use super::mysql::{Encryption, Session};
use super::tls::{Tls, Trust};

/// Long enough for any answer on loopback, on a busy machine too.
pub const SECOND: Duration = Duration::from_secs(1);
/// For servers that never answer.
pub const SHORT: Duration = Duration::from_millis(100);
const START: Duration = Duration::from_mins(2);

/// An address where nobody listens.
pub fn refusing_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A server that treats every connection alike.
pub struct Liar {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Liar {
    pub async fn new<F: Future<Output = ()> + Send + 'static>(
        act: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(act(stream));
            }
        });
        Self { addr, task }
    }

    /// Accepts and says nothing.
    pub async fn silent() -> Self {
        Self::new(|mut stream| async move { while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {} })
            .await
    }

    /// Waits for a first request if `asked`, says `words`, and closes in good order.
    pub async fn saying(words: &[u8], asked: bool) -> Self {
        let words = words.to_vec();
        Self::new(move |mut stream| {
            let words = words.clone();
            async move {
                if asked {
                    let _ = stream.read(&mut [0; 4096]).await;
                }
                let _ = stream.write_all(&words).await;
                let _ = stream.shutdown().await;
                while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
            }
        })
        .await
    }

    /// Says `words` to the first request and then `filler`, until 100 MB are out or the probe has left.
    pub async fn flooding(words: &[u8], filler: &'static [u8]) -> Self {
        let words = words.to_vec();
        Self::new(move |mut stream| {
            let words = words.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&words).await;
                let block = filler.repeat(65536 / filler.len());
                let mut sent = 0;
                while sent < 100_000_000 && stream.write_all(&block).await.is_ok() {
                    sent += block.len();
                }
            }
        })
        .await
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A real server process with a directory of its own.
pub struct Server {
    process: Child,
    pub addr: SocketAddr,
    pub dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// SIGKILL: no goodbye to anybody.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let done = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(done.success());
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            panic!("the server ended ({status}):\n{log}");
        }
    }
}

/// A child that the kernel ends with this test's thread, should nobody be left to drop it.
fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// Finds a program, or says that the test is skipped.
fn program(test: &str, names: &[&str]) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)))
        .find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED: {test}: no {} on this machine", names[0]);
    }
    found
}

/// An authority of a test's own, and the certificates that it signs, by openssl.
pub struct Pki {
    dir: TempDir,
}

impl Pki {
    /// `None` if there is no openssl.
    pub fn new(test: &str) -> Option<Self> {
        program(test, &["openssl"])?;
        let pki = Self { dir: tempfile::tempdir().unwrap() };
        // No two of them have one name, or a stranger's certificate would only seem badly signed.
        let name = pki.dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let make =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem";
        pki.openssl(&format!("{make} -subj /CN={name}"));
        Some(pki)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let done = command.args(arguments.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The authority's certificate, in PEM.
    pub fn authority(&self) -> String {
        fs::read_to_string(self.dir.path().join("ca.pem")).unwrap()
    }

    /// A certificate for `name` and 127.0.0.1, and its key: two files.
    pub fn certificate(&self, name: &str, days: u32) -> (PathBuf, PathBuf) {
        let extensions = self.dir.path().join("extensions");
        fs::write(extensions, format!("subjectAltName=DNS:{name},IP:127.0.0.1\n")).unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout key.pem -out request.pem"
        ));
        let sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions";
        self.openssl(&format!("{sign} -days {days} -out certificate.pem"));
        (self.dir.path().join("certificate.pem"), self.dir.path().join("key.pem"))
    }

    /// What nginx needs to serve with such a certificate.
    pub fn serving(&self, name: &str, days: u32) -> String {
        let (certificate, key) = self.certificate(name, days);
        format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display())
    }
}

/// An nginx that answers `/ping` with "pong", `/named` with what it was asked for, and else 404; `tls` are directives
/// for a listener with TLS, or nothing. A single process, for workers outlive a killed master.
pub async fn nginx(test: &str, tls: &str) -> Option<Server> {
    let daemon = program(test, &["nginx"])?;
    let dir = tempfile::tempdir().unwrap();
    let addr = refusing_address();
    let (ssl, named) = match tls {
        "" => ("", "$host, asked by $request_method"),
        _ => (" ssl", "$ssl_server_name, asked by HEAD or GET, over TLS"),
    };
    let config = format!(
        "daemon off; master_process off; worker_processes 1; error_log stderr; pid nginx.pid; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;\n\
         scgi_temp_path s; server {{ listen {addr}{ssl}; {tls}\n\
         location = /ping {{ add_header X-Ready \"yes, all of it\"; return 200 pong; }}\n\
         location = /named {{ return 200 \"{named}\"; }} location / {{ return 404; }} }} }}\n"
    );
    let path = dir.path().join("nginx.conf");
    fs::write(&path, config).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let process = mortal(&daemon)
        .arg("-p")
        .arg(dir.path())
        .arg("-c")
        .arg(&path)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut server = Server { process, addr, dir };
    let begin = Instant::now();
    while let Err(failure) = super::tcp::probe(addr, SECOND).await {
        server.assert_alive();
        assert!(begin.elapsed() < START, "{failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(server)
}

/// Starts a MariaDB with its own data directory; `root` has no password. `None` if it is not installed.
pub async fn mariadb(test: &str, options: &[&str]) -> Option<Server> {
    let daemon = program(test, &["mariadbd"])?;
    let installer = program(test, &["mariadb-install-db"])?;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = format!("--datadir={}", data.display());
    // A starting server clears its temporary directory of what it takes for its own remains, so none is shared.
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let temporary = format!("--tmpdir={}", temporary.display());
    let small = [
        temporary.as_str(),
        "--user=root",
        "--skip-name-resolve",
        "--innodb-log-file-size=8M",
        "--innodb-flush-method=nosync",
        "--innodb-doublewrite=0",
    ];
    let installed = Command::new(installer)
        .args(["--no-defaults", &data, "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .args(small)
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let addr = refusing_address();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let process = mortal(&daemon)
        .args(["--no-defaults", &data, "--bind-address=127.0.0.1"])
        .arg(format!("--port={}", addr.port()))
        .arg(format!("--socket={}", dir.path().join("sock").display()))
        .arg(format!("--pid-file={}", dir.path().join("pid").display()))
        .args(["--innodb-buffer-pool-size=16M", "--performance-schema=OFF"])
        .args(small)
        .args(options)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut server = Server { process, addr, dir };
    let begin = Instant::now();
    while let Err(failure) = root(addr, SECOND).await {
        server.assert_alive();
        assert!(begin.elapsed() < START, "{failure}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(server)
}

/// A single Galera node. `None` if it is not installed.
pub async fn galera(test: &str) -> Option<Server> {
    const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";
    if !Path::new(PROVIDER).exists() {
        println!("SKIPPED: {test}: no {PROVIDER} on this machine");
        return None;
    }
    let group = refusing_address();
    let provider_options =
        format!("--wsrep-provider-options=gmcast.listen_addr=tcp://{group};gcache.size=16M;gcs.fc_limit=64");
    let server = mariadb(
        test,
        &[
            "--wsrep-on=ON",
            &format!("--wsrep-provider={PROVIDER}"),
            "--wsrep-cluster-address=gcomm://",
            "--wsrep-new-cluster",
            &format!("--wsrep-node-address={group}"),
            "--binlog-format=ROW",
            "--default-storage-engine=InnoDB",
            "--innodb-autoinc-lock-mode=2",
            &provider_options,
        ],
    )
    .await?;
    // It accepts logins a moment before it serves.
    let begin = Instant::now();
    let ready = "SHOW GLOBAL STATUS LIKE 'wsrep_ready'";
    while begin.elapsed() < START {
        let mut root = root(server.addr, 10 * SECOND).await.unwrap();
        if root.query(ready, 10 * SECOND).await.is_ok_and(|rows| rows.rows[0][1].as_deref() == Some("ON")) {
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the node does not become ready");
}

/// A session as root, over TLS where the server speaks it.
async fn root(addr: SocketAddr, timeout: Duration) -> Result<Session, Failure> {
    let tls = Tls::patient(&Trust::Anybody).unwrap();
    Session::connect(addr, "root", "", &Encryption::Preferred(tls), timeout).await
}

/// Runs statements as root.
pub async fn sql(server: &Server, statements: &[&str]) {
    let mut root = root(server.addr, 10 * SECOND).await.unwrap();
    for statement in statements {
        let answer = root.query(statement, 10 * SECOND).await;
        answer.unwrap_or_else(|failure| panic!("{statement}: {failure}"));
    }
}

/// A PHP-FPM with one pool of two workers; returns it with the address of its `pm.status_listen`.
pub async fn php_fpm(test: &str) -> Option<(Server, SocketAddr)> {
    let names = ["php-fpm", "php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm8.1"];
    let daemon = program(test, &names)?;
    let dir = tempfile::tempdir().unwrap();
    let (addr, status) = (refusing_address(), refusing_address());
    let config = format!(
        "[global]\nerror_log = {log}\ndaemonize = no\n\
         [www]\nuser = nobody\ngroup = nogroup\nlisten = {addr}\nlisten.backlog = 16\npm = static\n\
         pm.max_children = 2\npm.status_path = /status\npm.status_listen = {status}\nping.path = /ping\n",
        log = dir.path().join("log").display()
    );
    let path = dir.path().join("fpm.conf");
    fs::write(&path, config).unwrap();
    // FPM's workers outlive a killed master, but not the init of their process namespace.
    let process = mortal(Path::new("unshare"))
        .args(["--pid", "--fork", "--kill-child"])
        .arg(daemon)
        .args(["--nodaemonize", "--no-php-ini", "--fpm-config"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Server { process, addr, dir };
    let begin = Instant::now();
    for listener in [addr, status] {
        while let Err(failure) = super::tcp::probe(listener, SECOND).await {
            server.assert_alive();
            assert!(begin.elapsed() < START, "{failure}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Some((server, status))
}
