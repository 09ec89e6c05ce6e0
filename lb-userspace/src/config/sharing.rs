//! Servers that several services use: what the data path cannot tell apart is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::abi::ENDPOINT_SERVICES;

use super::{model::Mode, report::Report, table::Marked, value::Fault};
use crate::listen::{self, Protocol};

/// A service's use of a server. The service is known by the place of its table.
#[derive(Clone, Copy)]
struct Use {
    server: Marked<SocketAddr>,
    protocol: Protocol,
    mode: Mode,
    service: usize,
}

/// Every service's use of every server.
#[derive(Default)]
pub(super) struct Sharing(Vec<Use>);

impl Sharing {
    /// The service at `service` uses a server.
    pub(super) fn uses(
        &mut self,
        server: Marked<SocketAddr>,
        protocol: Protocol,
        mode: Mode,
        service: usize,
    ) {
        self.0.push(Use { server, protocol, mode, service });
    }

    /// Report servers that are used in ways which exclude one another.
    pub(super) fn check(&self, report: &Report<'_>) {
        self.check_answers(report);
    }

    /// In `dnat` the service of an answer is found by trying those that its sender serves.
    fn check_answers(&self, report: &Report<'_>) {
        let mut services: BTreeMap<(SocketAddr, Protocol), BTreeSet<usize>> = BTreeMap::new();
        for Use { server, protocol, service, .. } in self.of(Mode::Dnat) {
            let of_server = services.entry((server.value, *protocol)).or_default();
            of_server.insert(*service);
            if of_server.len() == ENDPOINT_SERVICES + 1 {
                let server_name = listen::server(server.value);
                let wrong =
                    format!("address: {server_name} serves more than {ENDPOINT_SERVICES} services in `dnat`");
                report.add(server.at, Fault::new(wrong, r#"use it in the others with mode = "snat""#));
            }
        }
    }

    fn of(&self, mode: Mode) -> impl Iterator<Item = &Use> {
        self.0.iter().filter(move |known| known.mode == mode)
    }
}
