//! A case: tables, packets, and what becomes of each; and how it is run.

use lb_common::{Be32, Be128, abi, abi::mode, cell::Phase, ports::PortRanges};

use super::{
    check::check,
    ends::Packet,
    expect::{Expect, to_backend, to_client},
    fact::Fact,
    kind::Kind,
    scene::{self, Setting},
    segment,
    world::{Store, World},
};

#[derive(Clone, Debug)]
enum Step {
    Fact(Fact),
    Packet(Box<Packet>, Expect, Vec<Phase>),
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, as a sentence.
    pub what: String,
    /// What the scene is set up for.
    pub setting: Setting,
    /// The only family that it is about, if it is about one.
    only: Option<u8>,
    /// How often it may be tried, where chance decides.
    tries: u32,
    steps: Vec<Step>,
}

impl Case {
    /// A case over the scene, with one source port, in both families.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), setting: Setting::DEFAULT, only: None, tries: 1, steps: Vec::new() }
    }

    /// About one family only.
    pub fn only(self, version: u8) -> Self {
        Self { only: Some(version), ..self }
    }

    /// The case in each of its families.
    pub fn in_its_families(self) -> Vec<Self> {
        let versions = self.only.map_or(vec![4, 6], |version| vec![version]);
        let named = |version| {
            let setting = Setting { version, ..self.setting };
            Self { what: format!("{} (IPv{version})", self.what), setting, ..self.clone() }
        };
        versions.into_iter().map(named).collect()
    }

    /// With services of another mode.
    pub fn mode(mut self, mode: u8) -> Self {
        self.setting.mode = mode;
        self
    }

    /// With services of UDP.
    pub fn udp(mut self) -> Self {
        self.setting.protocol = abi::UDP;
        self
    }

    /// With other source ports.
    pub fn ports(self, ports: PortRanges) -> Self {
        Self { setting: self.setting.with_ports(ports), ..self }
    }

    /// With checksums that are worth less.
    pub fn trust(mut self, trust: u8) -> Self {
        self.setting.trust = trust;
        self
    }

    /// With so many buckets in the flow table.
    pub fn buckets(mut self, buckets: u32) -> Self {
        self.setting.buckets = buckets;
        self
    }

    /// With packets that may have been joined before they came here.
    pub fn joined(mut self) -> Self {
        self.setting.joined = true;
        self
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

    /// A packet comes in. Afterwards the port cells and the flows without one that are not free are in `phases`, in any
    /// order.
    pub fn send(mut self, packet: impl Into<Packet>, expect: Expect, phases: &[Phase]) -> Self {
        self.steps.push(Step::Packet(Box::new(packet.into()), expect, phases.to_vec()));
        self
    }

    /// Any bytes come in; they are of one family.
    pub fn send_frame(self, frame: Vec<u8>, expect: Expect, phases: &[Phase]) -> Self {
        let version = self.only.unwrap_or(4);
        self.only(version).send(Packet::Bytes(frame), expect, phases)
    }

    /// A whole handshake of [`scene::CLIENT`] with backend [`scene::A`] through [`scene::WEB`], as far as it is seen.
    pub fn handshake(self) -> Self {
        use segment::{ACK, SYN, client, server};
        let a = scene::A;
        let begun = self.send(client(SYN), to_backend(a).opens(a), &[Phase::Embryonic]);
        if mode::is_one_sided(begun.setting.mode) {
            return begun.send(client(ACK), to_backend(a), &[Phase::Answered]).given(Fact::Pass(1_100)).send(
                client(ACK),
                to_backend(a),
                &[Phase::Established],
            );
        }
        begun.send(server(a, SYN | ACK), to_client(a), &[Phase::Answered]).send(
            client(ACK),
            to_backend(a),
            &[Phase::Established],
        )
    }

    /// Run it; what went wrong, in words.
    pub fn run<W: World + Store<Be32> + Store<Be128>>(&self, world: &mut W) -> Result<(), String> {
        let once = |world: &mut W| match self.setting.version {
            4 => self.run_once::<Be32>(world),
            _ => self.run_once::<Be128>(world),
        };
        let mut outcome = once(world);
        for _ in 1..self.tries {
            if outcome.is_ok() {
                break;
            }
            outcome = once(world);
        }
        outcome
    }

    fn run_once<A: Kind>(&self, world: &mut impl Store<A>) -> Result<(), String> {
        world.clear();
        scene::set(world, &self.setting);
        for (number, step) in self.steps.iter().enumerate() {
            let outcome = match step {
                Step::Fact(fact) => {
                    fact.apply(world);
                    Ok(())
                }
                Step::Packet(packet, expect, phases) => {
                    packet.frame(world, &self.setting).and_then(|frame| match frame.len() {
                        length if length < world.shortest() => Ok(()),
                        _ => check(world, &self.setting, &frame, expect, phases),
                    })
                }
            };
            outcome.map_err(|why| format!("{}: step {}: {why}", self.what, number + 1))?;
        }
        Ok(())
    }
}

/// Run cases and panic with all that went wrong.
pub fn run_all(cases: &[Case], mut run: impl FnMut(&Case) -> Result<(), String>) {
    let failed: Vec<String> = cases.iter().filter_map(|case| run(case).err()).collect();
    let (bad, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{bad} of {all} cases failed:\n{}", failed.join("\n"));
}
