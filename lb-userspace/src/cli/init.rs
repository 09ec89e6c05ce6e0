//! `lb init`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use crate::config::Fault;

/// `lb init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Init {
    /// PHP servers, such as 10.0.0.11,10.0.0.12:8080; port 80 unless said
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = php, required_unless_present = "galera")]
    pub php: Vec<SocketAddr>,
    /// Nodes of a Galera cluster, such as 10.0.1.1,10.0.1.2,10.0.1.3; port 3306 unless said
    #[arg(long, value_name = "C,D,E", value_delimiter = ',', value_parser = galera)]
    pub galera: Vec<SocketAddr>,
    /// The address that clients connect to; without it, this host's own
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where packets come in; without it, the interface of the default route and those that lead to the servers
    #[arg(long, value_name = "IF", value_delimiter = ',')]
    pub interface: Vec<String>,
    /// Write the file here, and the password beside it; what is there is never overwritten. Without it, the file goes to
    /// standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn php(text: &str) -> Result<SocketAddr, Fault> {
    server(text, 80)
}

fn galera(text: &str) -> Result<SocketAddr, Fault> {
    server(text, 3306)
}

/// An address with a port, or without: then with `port`.
fn server(text: &str, port: u16) -> Result<SocketAddr, Fault> {
    let alone =
        || text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, port));
    let server = text.parse::<SocketAddr>().or_else(|_| alone()).ok();
    server.filter(|server| server.port() > 0 && !server.ip().is_unspecified()).ok_or_else(|| Fault {
        wrong: format!("`{}` is no address of a server", text.escape_debug()),
        right: "write 10.0.0.11, 10.0.0.11:8080 or [2001:db8::11]:80".to_owned(),
    })
}
