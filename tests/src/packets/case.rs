//! A case: tables, packets, and what becomes of each; and how it is run.

use std::net::SocketAddrV4;

use lb_common::{abi::checksums, cell::Phase, ports::PortRanges};

use super::{
    check::{check, flow_of},
    expect::{Expect, to_backend, to_client},
    fact::Fact,
    scene::{self, SOURCE},
    segment::{self, Ends, Segment},
    world::World,
};

#[derive(Clone, Debug)]
enum Step {
    Fact(Fact),
    Segment(Box<Segment>, Expect, Vec<Phase>),
    Frame(Vec<u8>, Expect, Vec<Phase>),
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, as a sentence.
    pub what: String,
    /// The program's source ports.
    pub ports: PortRanges,
    /// How much checksums are worth, one of `abi::checksums`.
    pub trust: u8,
    /// Room in the flow table.
    pub flows: u32,
    /// How often it may be tried, where chance decides.
    tries: u32,
    steps: Vec<Step>,
}

impl Case {
    /// A case over the scene, with one source port.
    pub fn new(what: impl Into<String>) -> Self {
        let ports = scene::ONE_PORT;
        Self { what: what.into(), ports, trust: checksums::COMPLETE, flows: 16, tries: 1, steps: Vec::new() }
    }

    /// With other source ports.
    pub fn ports(self, ports: PortRanges) -> Self {
        Self { ports, ..self }
    }

    /// With checksums that are worth less.
    pub fn trust(self, trust: u8) -> Self {
        Self { trust, ..self }
    }

    /// With room for so many flows.
    pub fn flows(self, flows: u32) -> Self {
        Self { flows, ..self }
    }

    /// With a result that chance may spoil: one try of so many must succeed.
    pub fn tries(self, tries: u32) -> Self {
        Self { tries, ..self }
    }

    /// With something different from the scene, from here on.
    pub fn given(mut self, fact: Fact) -> Self {
        self.steps.push(Step::Fact(fact));
        self
    }

    /// A packet comes in. Afterwards the port cells that are not free are in `phases`, in any order.
    pub fn send(mut self, segment: Segment, expect: Expect, phases: &[Phase]) -> Self {
        self.steps.push(Step::Segment(Box::new(segment), expect, phases.to_vec()));
        self
    }

    /// Any bytes come in.
    pub fn send_frame(mut self, frame: Vec<u8>, expect: Expect, phases: &[Phase]) -> Self {
        self.steps.push(Step::Frame(frame, expect, phases.to_vec()));
        self
    }

    /// A whole handshake of [`scene::CLIENT`] with backend [`scene::A`] through [`scene::WEB`].
    pub fn handshake(self) -> Self {
        use segment::{ACK, SYN, client, server};
        let a = scene::A;
        self.send(client(SYN), to_backend(a).opens(a), &[Phase::Embryonic])
            .send(server(a, SYN | ACK), to_client(a), &[Phase::Answered])
            .send(client(ACK), to_backend(a), &[Phase::Established])
    }

    /// Run it; what went wrong, in words.
    pub fn run(&self, world: &mut dyn World) -> Result<(), String> {
        let mut outcome = self.run_once(world);
        for _ in 1..self.tries {
            if outcome.is_ok() {
                break;
            }
            outcome = self.run_once(world);
        }
        outcome
    }

    fn run_once(&self, world: &mut dyn World) -> Result<(), String> {
        world.clear();
        scene::set(world, self.ports);
        for (number, step) in self.steps.iter().enumerate() {
            let outcome = match step {
                Step::Fact(fact) => {
                    fact.apply(world);
                    Ok(())
                }
                Step::Segment(segment, expect, phases) => ends(world, segment)
                    .and_then(|(from, to)| check(world, &segment.frame_between(from, to), expect, phases)),
                Step::Frame(frame, ..) if frame.len() < world.shortest() => Ok(()),
                Step::Frame(frame, expect, phases) => check(world, frame, expect, phases),
            };
            outcome.map_err(|why| format!("{}: step {}: {why}", self.what, number + 1))?;
        }
        Ok(())
    }
}

/// Run cases, each in the world that `world` has for its constants, and panic with all that went wrong.
pub fn run_all(cases: &[Case], mut world: impl FnMut(&Case, &mut dyn FnMut(&mut dyn World))) {
    let mut failed = Vec::new();
    for case in cases {
        world(case, &mut |world| failed.extend(case.run(world).err()));
    }
    let (bad, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{bad} of {all} cases failed:\n{}", failed.join("\n"));
}

fn ends(world: &dyn World, segment: &Segment) -> Result<(SocketAddrV4, SocketAddrV4), String> {
    match segment.ends {
        Ends::Fixed(from, to) => Ok((from, to)),
        Ends::ToPortOf { backend, client } => {
            let (service, _) = scene::service_of(backend);
            let flow = flow_of(world, client, service).ok_or(format!("{client} has no flow"))?;
            Ok((scene::server_of(backend).0, SocketAddrV4::new(SOURCE, flow.source_port.host())))
        }
    }
}
