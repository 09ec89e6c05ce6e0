//! Servers that several services use in `dnat`: only so many can be told apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::abi::ENDPOINT_SERVICES;

use super::{model::Mode, report::Report, table::Marked, value::Fault};
use crate::listen::{self, Protocol};

/// The services of each server, in `dnat`: by the places of their tables.
#[derive(Default)]
pub(super) struct Sharing(BTreeMap<(SocketAddr, Protocol), BTreeSet<usize>>);

impl Sharing {
    /// The service at `service` uses a server. In `dnat` the service of an answer is found by trying those that its sender
    /// serves, so the first one too many is reported.
    pub(super) fn uses(
        &mut self,
        report: &Report<'_>,
        server: Marked<SocketAddr>,
        protocol: Protocol,
        mode: Mode,
        service: usize,
    ) {
        if mode != Mode::Dnat {
            return;
        }
        let services = self.0.entry((server.value, protocol)).or_default();
        if services.insert(service) && services.len() == ENDPOINT_SERVICES + 1 {
            let name = listen::server(server.value);
            let wrong = format!("address: {name} serves more than {ENDPOINT_SERVICES} services in `dnat`");
            report.add(server.at, Fault::new(wrong, r#"use it in the others with mode = "snat""#));
        }
    }
}
