//! `lb trace`: build the packet, have the data path follow it, and say what came of it.

use std::net::SocketAddr;

use lb_common::Reason;
use tokio::sync::oneshot;

use super::{
    controller::Controller,
    observe::{Names, failed, refusal, refuse, verdict},
};
use crate::{
    api::{self, Followed, Hex, NextHop, Refusal, RefusalKind, Reply, Traced, Tunnel, Verdict},
    config::Algorithm,
    dataplane::{Question, Trace},
    listen::{self, Protocol},
    observe::{Headers, build, mac},
};

/// All that is known before the data path is asked.
struct Asked {
    names: Names,
    question: Question,
    service: String,
    mode: String,
    algorithm: Algorithm,
    segment: api::Segment,
}

impl Controller {
    /// Follow a packet, and answer.
    pub(super) fn trace(&self, wanted: &api::Trace, reply: oneshot::Sender<Reply>) {
        let asked = match self.asked(wanted) {
            Ok(asked) => asked,
            Err(refusal) => return refuse(reply, refusal),
        };
        let dataplane = self.dataplane.clone();
        tokio::spawn(async move {
            match dataplane.trace(asked.question.clone()).await {
                Some(Ok(trace)) => {
                    let _ = reply.send(Reply::Trace(Box::new(asked.traced(&trace))));
                }
                Some(Err(error)) => refuse(reply, failed(&error)),
                None => {}
            }
        });
    }

    fn asked(&self, wanted: &api::Trace) -> Result<Asked, Refusal> {
        let bad = |error: String, hint: &str| refusal(RefusalKind::BadInput, &error, hint);
        let listen = self.listen_of(&wanted.service)?;
        let port = wanted.port.unwrap_or(listen.ports.ends().0);
        if !listen.contains(port) {
            return Err(bad(
                format!("{} does not listen on port {port}", wanted.service),
                &listen.to_string(),
            ));
        }
        if listen.protocol == Protocol::Udp && wanted.segment == api::Segment::Ack {
            return Err(bad(format!("{} is over UDP, which knows no ACK", wanted.service), ""));
        }
        let attached = &self.fixed.attached;
        let interface = match &wanted.interface {
            Some(name) => {
                attached.iter().find(|(interface, ..)| interface.name == *name).ok_or_else(|| {
                    let known: Vec<&str> = attached.iter().map(|(known, ..)| known.name.as_str()).collect();
                    bad(format!("lb is not attached to {name}"), &format!("it is to {}", known.join(", ")))
                })?
            }
            None => attached.first().ok_or_else(|| bad("lb is attached to no interface".to_owned(), ""))?,
        };
        let mut question = Question {
            packet: Vec::new(),
            interface: interface.0.name.clone(),
            service: listen,
            port,
            client: wanted.client,
        };
        let receiver = interface.0.mac.unwrap_or_default();
        let families = || {
            let service = SocketAddr::new(listen.address, port);
            bad(format!("{} and {service} are of different versions of IP", wanted.client), "")
        };
        question.packet = build::packet(&question, receiver, wanted.segment).ok_or_else(families)?;
        let services = &self.config.services;
        let service = services.iter().find(|service| service.name == wanted.service);
        let (mode, algorithm) =
            service.map(|service| (service.mode.to_string(), service.algorithm)).unwrap_or_default();
        let service = wanted.service.clone();
        Ok(Asked { names: self.names(), question, service, mode, algorithm, segment: wanted.segment })
    }
}

impl Asked {
    fn traced(&self, trace: &Trace) -> Traced {
        let verdict = verdict(trace.outcome);
        let leaves = matches!(verdict, Verdict::Forward | Verdict::Answer);
        let out = leaves.then(|| Headers::read(&trace.packet));
        let next_hop = out.as_ref().zip(trace.leaving).map(|(headers, index)| NextHop {
            mac: mac(headers.macs.1),
            interface: self.names.interface(index),
        });
        Traced {
            service: self.service.clone(),
            mode: self.mode.clone(),
            algorithm: self.algorithm.to_string(),
            interface: self.question.interface.clone(),
            packet: followed(&Headers::read(&self.question.packet), &self.question.packet),
            verdict,
            backend: self.names.backend(trace.service, trace.backend),
            address: trace.backend.map(listen::server),
            reason: trace.reason.map(|reason| reason.name().to_owned()),
            why: self.why(verdict, trace),
            known: trace.known,
            out: out.map(|headers| followed(&headers, &trace.packet)),
            next_hop,
        }
    }

    fn why(&self, verdict: Verdict, trace: &Trace) -> String {
        let counted = |reason: Reason| format!("{}: {}", reason.name(), reason.meaning());
        match (verdict, trace.reason) {
            (Verdict::Forward, reason) => {
                let chosen = self.chosen(trace);
                reason.map_or(chosen.clone(), |reason| format!("{chosen}; {}", counted(reason)))
            }
            (_, Some(reason)) => counted(reason),
            (Verdict::Pass, None) => "it is no packet of a service: the host gets it untouched".to_owned(),
            (_, None) => String::new(),
        }
    }

    /// Why that backend.
    fn chosen(&self, trace: &Trace) -> String {
        let opens = self.segment == api::Segment::Syn;
        let stays = trace.known && (!opens || trace.reason != Some(Reason::SynOnOldFlow));
        let algorithm = self.algorithm;
        match algorithm {
            _ if stays => "its connection is known, and stays with its backend".to_owned(),
            Algorithm::Maglev | Algorithm::SourceHash => format!("chosen by {algorithm}"),
            _ => format!("a new connection, chosen by {algorithm}: the next one may go elsewhere"),
        }
    }
}

fn followed(headers: &Headers, packet: &[u8]) -> Followed {
    Followed {
        from: headers.from(),
        to: headers.to(),
        what: headers.what.clone(),
        tunnel: headers.tunnel.map(|(from, to)| Tunnel { from, to }),
        bytes: Hex(packet.to_vec()),
    }
}
