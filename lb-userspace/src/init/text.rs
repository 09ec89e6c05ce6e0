//! The file and the words around it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{password::Password, plan::Plan};

/// PHP-FPM's own port, where it speaks FastCGI: no page can be asked for there.
const FASTCGI: u16 = 9000;

const HEAD: &str = "\
# Written by `lb init`. `lb check` says what is wrong with it, and with this host; README says what else there is.
# More services and clusters may stand in files of their own: conf.d/*.toml beside this one.

# Where clients' packets and the servers' answers come in.
";

const HTTP: &str = "\
# A server is up while it answers this page with anything but an error of its own. A living web server may stand before
# a dead PHP: name a page that PHP itself answers, such as pm.ping of PHP-FPM or the application's own health page.
check = { type = \"http\", path = \"/\", status = \"200-499\" }
";

const TCP: &str = "\
# PHP-FPM itself listens there: a server is up while it takes connections. With its status page (pm.status_path):
# check = { type = \"php-fpm\", url = \"fcgi://:9000/status\" }
check = { type = \"tcp\" }
";

const LOAD: &str = "\
# With PHP-FPM's status page on a listener of its own (pm.status_listen = 9001, pm.status_path = /status) busy servers
# get less; max-children is the pool's pm.max_children.
# load = { type = \"php-fpm\", url = \"fcgi://:9001/status\", max-children = 20 }
";

const WRITER: &str = "
# The databases. All connections to this address go to the one writer; while there is none, they wait for three seconds.
[[service]]
name = \"db-write\"
";

const CLUSTER: &str = "
[[cluster]]
name = \"db\"
type = \"galera\"
# The account that asks the nodes for their state; it needs no privilege.
";

/// The configuration. `secret`: the password's file.
pub(super) fn file(plan: &Plan, secret: &Path) -> String {
    let names: Vec<String> = plan.interfaces.iter().map(|name| quoted(name)).collect();
    let mut text = format!("{HEAD}interfaces = [{}]\n", names.join(", "));
    if let Some(address) = plan.web {
        text.push_str(
            "\n# PHP. Clients connect to this address, which an interface of this host must have.\n",
        );
        let _ = writeln!(text, "[[service]]\nname = \"web\"\naddress = \"{address}/tcp\"");
        text.push_str(if plan.php.iter().any(|server| server.port() == FASTCGI) { TCP } else { HTTP });
        text.push_str(LOAD);
        listed(&mut text, "backends", "web", &plan.php, |_| String::new());
    }
    if let Some(address) = plan.database {
        text.push_str(WRITER);
        let _ = writeln!(text, "address = \"{address}/tcp\"\ncluster = \"db\"\nrole = \"writer\"");
        text.push_str(CLUSTER);
        let secret = quoted(&secret.display().to_string());
        let _ = writeln!(text, "monitor = {{ user = \"lb\", password-file = {secret} }}");
        text.push_str("# The lowest priority writes, as long as it can.\n");
        listed(&mut text, "nodes", "db", &plan.nodes, |number| format!(", priority = {number}"));
    }
    text
}

/// A list of servers with names and whatever else `more` says of each number.
fn listed(text: &mut String, key: &str, name: &str, servers: &[SocketAddr], more: impl Fn(usize) -> String) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{key} = [");
    for (number, server) in (1..).zip(servers) {
        let more = more(number);
        let _ = writeln!(text, "  {{ name = \"{name}{number}\", address = \"{server}\"{more} }},");
    }
    text.push_str("]\n");
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What is left to do. `written`: the file is there; `password`: with the file that it is in, or belongs into.
pub(super) fn left(plan: &Plan, file: &Path, written: bool, password: Option<(&Password, &Path)>) -> String {
    let mut text = String::new();
    let shown = file.display();
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if written {
        let _ = writeln!(text, "{shown} is written.");
    } else {
        let _ =
            writeln!(text, "This is {shown}; --output {shown} writes it, and the password's file beside it.");
    }
    if let Some((password, secret)) = password {
        account(&mut text, plan, password);
        let secret = secret.display();
        if !written {
            let line = format!("(umask 077; echo {} > {secret})", password.expose());
            let _ = writeln!(text, "The same password belongs into a file of this host:\n  {line}");
        } else if password.is_new {
            let _ = writeln!(text, "The password is in {secret}, readable to its owner only.");
        } else {
            let _ = writeln!(text, "The password was in {secret} already, and is left as it is.");
        }
    }
    let _ = writeln!(text, "\nThen, on this host:");
    let interface = plan.interfaces.first().map_or("IFACE", String::as_str);
    for address in &plan.missing {
        let _ = match address {
            IpAddr::V4(_) => writeln!(text, "  ip addr add {address}/32 dev {interface}"),
            IpAddr::V6(_) => writeln!(text, "  ip -6 addr add {address}/128 dev {interface} preferred_lft 0"),
        };
    }
    let _ = writeln!(text, "  lb check --config {shown}");
    let _ = writeln!(text, "  lb run --config {shown} --confirm 60s");
    let _ = writeln!(text, "and, from a new session within that minute:\n  lb confirm");
    text
}

fn account(text: &mut String, plan: &Plan, password: &Password) {
    let nodes: Vec<String> = plan.nodes.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "\nType this into one of the database nodes ({}):", nodes.join(", "));
    for address in &plan.seen {
        let _ = writeln!(text, "  CREATE USER 'lb'@'{address}' IDENTIFIED BY {};", password.quoted());
    }
}
