//! What the demo plays on: one balancer, two PHP nodes, three database nodes, and visitors outside.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::{fs, iter};

use crate::lab::balancer::{self, Balancer};
use crate::lab::error::Context;
use crate::lab::galera::Galera;
use crate::lab::machine::joined;
use crate::lab::php::{PhpNode, PhpOptions, STATUS_PORT};
use crate::lab::setup::{self, Service};
use crate::lab::{Error, Host, Lab, Result, Setup};

/// The page that the visitors ask for.
pub const PAGE: &str = "shop.php";

/// What a page works before it turns to the database, on a node in good health. Long beside the database's
/// part, so that the page as a whole becomes nearly five times slower, also on a busy machine.
pub const WORK: Duration = Duration::from_millis(80);

/// Pages at a time. As many as a node has workers: no page waits for one.
pub const VISITORS: u8 = 16;

/// Addresses of the visitors on each of the two client hosts.
const ADDRESSES: u8 = 4;

/// Everything that runs. The fields are dropped in this order: who asks before who answers.
#[derive(Debug)]
pub struct World {
    /// The balancer.
    pub balancer: Balancer,
    /// `web1` and `web2`.
    pub php: Vec<PhpNode>,
    /// `db1` to `db3`.
    pub galera: Galera,
    clients: Vec<Host>,
}

/// Where one visitor sits.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The host.
    pub host: Host,
    /// The address that its connections come from.
    pub address: Ipv4Addr,
}

/// The hosts and servers behind the balancer, before the balancer is there.
#[derive(Debug)]
pub struct Servers {
    lab: Lab,
    php: Vec<PhpNode>,
    galera: Galera,
}

impl Servers {
    /// Starts PHP nodes and database nodes side by side.
    pub fn start() -> Result<Self> {
        if !balancer::program().is_file() {
            let program = format!("lb (not found as {})", balancer::program().display());
            return Err(Error::Missing { program });
        }
        let lab = Lab::new()?;
        let webs = [lab.web_host(1)?, lab.web_host(2)?];
        let databases = [lab.database_host(1)?, lab.database_host(2)?, lab.database_host(3)?];
        let (php, galera) = thread::scope(|scope| {
            let php = scope.spawn(|| webs.iter().map(start_php).collect::<Result<Vec<_>>>());
            let galera = Galera::start(&databases.each_ref());
            (joined(php.join()), galera)
        });
        Ok(Self { lab, php: php?, galera: galera? })
    }

    /// Puts the balancer in front of them, and visitors outside.
    pub fn balanced(self) -> Result<World> {
        let clients = [1, 2].map(|number| client(&self.lab, number)).into_iter().collect::<Result<_>>()?;
        let balancer = Balancer::start(&self.lab.balancer_host()?, &configuration(), &[])?;
        Ok(World { balancer, php: self.php, galera: self.galera, clients })
    }
}

impl World {
    /// So many visitors, spread over all client addresses.
    pub fn visitors(&self, count: u8) -> Vec<Visitor> {
        let places = self.clients.iter().flat_map(|host| {
            (1..=ADDRESSES).map(|number| Visitor { host: host.clone(), address: outside(host, number) })
        });
        places.cycle().take(count.into()).collect()
    }

    /// A host from which visitors come.
    pub fn client(&self) -> Option<&Host> {
        self.clients.first()
    }

    /// Where the balancer's program is.
    pub fn program() -> PathBuf {
        balancer::program()
    }
}

fn start_php(host: &Host) -> Result<PhpNode> {
    let options = PhpOptions { children: VISITORS.into(), work: WORK, ..PhpOptions::default() };
    let node = PhpNode::start(host, &options)?;
    let page = host.directory().join("php/www").join(PAGE);
    fs::write(&page, include_str!("shop.php")).context(|| format!("cannot write {}", page.display()))?;
    Ok(node)
}

/// A client host with its further addresses.
fn client(lab: &Lab, number: u8) -> Result<Host> {
    let host = lab.host(&format!("client{number}"), Ipv4Addr::new(10, 77, number, 1))?;
    (2..=ADDRESSES).try_for_each(|number| host.add_address(outside(&host, number), "eth0"))?;
    Ok(host)
}

fn outside(host: &Host, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = host.address().octets();
    Ipv4Addr::new(a, b, c, number)
}

/// The balancer's configuration: a web service by load, and the cluster's writer.
fn configuration() -> String {
    let lines = format!(
        "check = {{ type = \"http\", path = \"/ping\" }}\n\
         load = {{ type = \"php-fpm\", url = \"fcgi://:{STATUS_PORT}/status\", max-children = {VISITORS} }}"
    );
    let weights: Vec<u32> = iter::repeat_n(100, 2).collect();
    Setup::new().service(&Service { lines: &lines, ..Service::web(&weights) }).database(3).text()
}

/// A command line that runs another one in a host.
pub fn inside(host: &Host, command: &str) -> String {
    format!("sudo {} {command}", host.shell_command())
}

/// Command lines for people who want to look around.
pub fn commands(world: &World) -> Vec<String> {
    let lb = format!("{} status", World::program().display());
    let (web, database) = (setup::WEB, setup::DATABASE);
    let question = "SELECT COUNT(*), @@wsrep_node_name FROM a";
    let mut lines = vec![
        "# a shell on the balancer, and what it says of itself".to_owned(),
        format!("sudo {}", world.balancer.host().shell_command()),
        inside(world.balancer.host(), &lb),
    ];
    if let Some(client) = world.client() {
        lines.push("# a page and a query through the balancer".to_owned());
        lines.push(inside(client, &format!("curl -s 'http://{web}/{PAGE}?h={}'", database.ip())));
        lines.push(inside(client, &format!("mariadb -h {} -u app -papp t -e '{question}'", database.ip())));
    }
    lines.push("# shells on a PHP node and on a database node".to_owned());
    lines.extend(world.php.first().map(|node| format!("sudo {}", node.host().shell_command())));
    lines.extend(world.galera.nodes().last().map(|node| format!("sudo {}", node.host().shell_command())));
    lines
}
