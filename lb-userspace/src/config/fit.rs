//! Whether a server fits the service that names it: the version of IP, and what the mode does to ports.

use std::net::SocketAddr;

use super::address::SERVER_FORM;
use super::model::Mode;
use super::value::Fault;
use crate::listen::{Listen, Ports};

/// Errors: what keeps the server from serving.
pub(crate) fn server(listen: Listen, mode: Mode, server: SocketAddr) -> Result<(), Fault> {
    if listen.address.is_ipv4() != server.is_ipv4() {
        let version = |four: bool| if four { "IPv4" } else { "IPv6" };
        let wrong = format!(
            "{} is an address of {}, and its service has one of {}",
            server.ip(),
            version(server.is_ipv4()),
            version(listen.address.is_ipv4())
        );
        return Err(Fault::new(wrong, "no mode translates between the two; give each a service of its own"));
    }
    let named = server.port() != 0;
    let without = || format!(r#"leave the port out: "{}""#, server.ip());
    match listen.ports {
        Ports::One(_) if !named => Err(Fault::new(format!("`{}` names no port", server.ip()), SERVER_FORM)),
        Ports::One(port) if mode.keeps_port() && server.port() != port => {
            let wrong =
                format!(r#"mode "{mode}" keeps the client's port {port}, and this is {}"#, server.port());
            Err(Fault::new(wrong, format!(r#"write "{}""#, SocketAddr::new(server.ip(), port))))
        }
        Ports::Range(..) | Ports::All if named && mode.keeps_port() => {
            Err(Fault::new(format!(r#"mode "{mode}" keeps the client's port"#), without()))
        }
        Ports::Range(..) | Ports::All if named && mode == Mode::Dnat => {
            let wrong = r#"mode "dnat" could not tell which of the service's ports an answer belongs to"#;
            Err(Fault::new(wrong, without()))
        }
        _ => Ok(()),
    }
}
