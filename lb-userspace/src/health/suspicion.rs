//! Suspicion: what a backend's own traffic says of it, until a probe has decided.
//!
//! Between two probes a backend that has died goes on being given connections, each of which fails. The data path sees
//! the first of them fail. From then on the backend takes no new ones, and a probe is sent at once; its word counts. So
//! evidence never makes *down*: it bridges the time to the next probe, for at most one interval, and at most once in an
//! interval, for a backend whose traffic and whose probes disagree must not be taken in and out all the time.
//!
//! A refusal is proof enough: the backend's kernel itself has spoken. Silence is not, for one lost packet looks the same.
//! It counts where an answer would have been seen at all (not in modes whose answers go straight to the client), and if
//! either two different clients have met it within a second, or nobody has been answered for as long as the SYN has
//! waited. What is no proof only hastens a probe.

use std::{fmt, net::IpAddr, time::Duration};

use super::Moment;

/// Two clients that meet silence within this time are no coincidence.
const TOGETHER: Duration = Duration::from_secs(1);

/// The data path tells of silence when a SYN has waited for about as long (its `UNANSWERED`): what was answered within
/// this time was answered while that SYN waited.
const WAITED: Duration = Duration::from_millis(900);

/// Evidence hastens a probe at most once in this time.
const HASTEN_EVERY: Duration = Duration::from_secs(1);

/// What the data path has seen of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered a SYN with a RST.
    Refused,
    /// It has not answered this client's SYN within a second.
    Unanswered(IpAddr),
    /// It answered a SYN.
    Answered,
}

/// Why a backend is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It refused a connection.
    Refused,
    /// It left SYNs unanswered.
    Silent,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused a connection",
            Self::Silent => "did not answer a connection",
        })
    }
}

/// What follows from a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Consequence {
    /// Nothing.
    Nothing,
    /// Probe it at once.
    Probe,
    /// Give it no new connections, and probe it at once.
    Suspect(Evidence),
}

/// A standing suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    evidence: Evidence,
    since: Moment,
}

/// The suspicion against one backend, if there is any, and what could lead to one.
#[derive(Clone, Debug)]
pub struct Suspicion {
    /// How long it lasts, and how far apart two of them are: the interval of the probes.
    interval: Duration,
    /// Whether its answers pass the data path.
    sees_answers: bool,
    /// The last client that met silence.
    silence: Option<(IpAddr, Moment)>,
    answered: Option<Moment>,
    hastened: Option<Moment>,
    /// When the last suspicion began, whether it stands or not.
    begun: Option<Moment>,
    standing: Option<Standing>,
}

impl Suspicion {
    /// None yet. `interval` is that of the backend's probes; `sees_answers` says whether its answers to clients pass the
    /// data path, so that silence means something.
    pub fn new(interval: Duration, sees_answers: bool) -> Self {
        Self {
            interval,
            sees_answers,
            silence: None,
            answered: None,
            hastened: None,
            begun: None,
            standing: None,
        }
    }

    /// Whether `other` would be judged by the same rules.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.interval, self.sees_answers) == (other.interval, other.sees_answers)
    }

    /// Takes in a sign of a backend that takes new connections. `others` says whether another one could take them in its
    /// place: the last one is never suspected.
    pub fn hear(&mut self, sign: Sign, others: bool, now: Moment) -> Consequence {
        let proof = match sign {
            Sign::Answered => {
                self.answered = Some(now);
                return Consequence::Nothing;
            }
            Sign::Refused => Some(Evidence::Refused),
            Sign::Unanswered(client) => self.is_proof(client, now).then_some(Evidence::Silent),
        };
        if self.standing.is_some() {
            return Consequence::Nothing;
        }
        let rested = self.begun.is_none_or(|begun| now.since(begun) >= self.interval);
        if let Some(evidence) = proof.filter(|_| others && rested) {
            self.begun = Some(now);
            self.hastened = Some(now);
            self.standing = Some(Standing { evidence, since: now });
            return Consequence::Suspect(evidence);
        }
        if self.hastened.is_some_and(|hastened| now.since(hastened) < HASTEN_EVERY) {
            return Consequence::Nothing;
        }
        self.hastened = Some(now);
        Consequence::Probe
    }

    /// Whether one more client that met silence is more than a lost packet.
    fn is_proof(&mut self, client: IpAddr, now: Moment) -> bool {
        let before = self.silence.replace((client, now));
        let another = before.is_some_and(|(other, at)| other != client && now.since(at) <= TOGETHER);
        let only = self.answered.is_none_or(|at| now.since(at) >= WAITED);
        self.sees_answers && (another || only)
    }

    /// Why it is suspected, if it is.
    pub fn evidence(&self) -> Option<Evidence> {
        self.standing.map(|standing| standing.evidence)
    }

    /// A probe that was begun at `begun` has succeeded; whether that ends a suspicion. One that was under way when the
    /// suspicion arose knows nothing of it.
    pub fn contradict(&mut self, begun: Moment) -> bool {
        let contradicted = self.standing.is_some_and(|standing| begun >= standing.since);
        if contradicted {
            self.standing = None;
        }
        contradicted
    }

    /// Its probes have decided; whether there was anything to end.
    pub fn end(&mut self) -> bool {
        self.standing.take().is_some()
    }

    /// Time has passed; whether that has ended a suspicion.
    pub fn expire(&mut self, now: Moment) -> bool {
        let over = self.standing.is_some_and(|standing| now.since(standing.since) >= self.interval);
        if over {
            self.standing = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Consequence::{Nothing, Probe, Suspect},
        Evidence::{Refused, Silent},
        *,
    };

    const INTERVAL: Duration = Duration::from_secs(10);
    const A: Sign = Sign::Unanswered(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const B: Sign = Sign::Unanswered(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    /// Signs by the millisecond, and what must follow from each.
    fn hear(suspicion: &mut Suspicion, others: bool, signs: &[(u64, Sign, Consequence)]) {
        for (millis, sign, expected) in signs {
            let followed = suspicion.hear(*sign, others, at(*millis));
            assert_eq!(followed, *expected, "{sign:?} at {millis} ms of {signs:?}");
        }
    }

    #[test]
    fn a_refusal_is_proof_and_silence_is_one_if_two_clients_meet_it_or_nobody_is_answered() {
        for signs in [
            vec![(0, Sign::Refused, Suspect(Refused))],
            // The only traffic.
            vec![(1_000, A, Suspect(Silent))],
            vec![(0, Sign::Answered, Nothing), (900, A, Suspect(Silent))],
            // Others are answered: one client may have lost a packet, a second one within a second has not.
            vec![(200, Sign::Answered, Nothing), (1_000, A, Probe), (1_500, B, Suspect(Silent))],
            vec![(200, Sign::Answered, Nothing), (1_000, A, Probe), (1_067, A, Nothing)],
            vec![
                (200, Sign::Answered, Nothing),
                (1_000, A, Probe),
                (2_000, Sign::Answered, Nothing),
                (2_001, B, Probe),
            ],
            // A refusal is proof whatever else is answered.
            vec![(0, Sign::Answered, Nothing), (1, Sign::Refused, Suspect(Refused))],
        ] {
            hear(&mut Suspicion::new(INTERVAL, true), true, &signs);
        }
    }

    #[test]
    fn silence_only_hastens_the_probe_where_no_answer_would_have_been_seen() {
        let mut suspicion = Suspicion::new(INTERVAL, false);
        hear(&mut suspicion, true, &[(0, A, Probe), (67, B, Nothing), (1_000, B, Probe)]);
        assert_eq!(suspicion.evidence(), None);
        hear(&mut suspicion, true, &[(1_001, Sign::Refused, Suspect(Refused))]);
    }

    #[test]
    fn the_last_usable_backend_is_probed_and_not_suspected() {
        let mut suspicion = Suspicion::new(INTERVAL, true);
        let burst = [
            (0, Sign::Refused, Probe),
            (67, Sign::Refused, Nothing),
            (999, Sign::Refused, Nothing),
            (1_000, A, Probe),
        ];
        hear(&mut suspicion, false, &burst);
        assert_eq!(suspicion.evidence(), None);
    }

    #[test]
    fn a_burst_of_refusals_is_one_suspicion_an_interval() {
        let mut suspicion = Suspicion::new(INTERVAL, true);
        hear(&mut suspicion, true, &[(0, Sign::Refused, Suspect(Refused)), (67, Sign::Refused, Nothing)]);
        assert!(suspicion.contradict(at(70)));
        let burst = [
            (134, Sign::Refused, Nothing),
            (1_000, Sign::Refused, Probe),
            (1_001, Sign::Refused, Nothing),
            (9_999, Sign::Refused, Probe),
            (10_000, Sign::Refused, Suspect(Refused)),
        ];
        hear(&mut suspicion, true, &burst);
    }

    #[test]
    fn only_a_probe_that_began_after_the_suspicion_contradicts_it() {
        let mut suspicion = Suspicion::new(INTERVAL, true);
        assert!(!suspicion.contradict(at(1)), "there is none");
        hear(&mut suspicion, true, &[(5, Sign::Refused, Suspect(Refused))]);
        assert!(!suspicion.contradict(at(4)));
        assert_eq!(suspicion.evidence(), Some(Refused));
        assert!(suspicion.contradict(at(5)));
        assert_eq!(suspicion.evidence(), None);
    }

    #[test]
    fn a_suspicion_ends_after_an_interval_or_when_probes_have_decided() {
        let mut suspicion = Suspicion::new(INTERVAL, true);
        hear(&mut suspicion, true, &[(5, Sign::Refused, Suspect(Refused))]);
        assert!(!suspicion.expire(at(10_004)));
        assert!(suspicion.expire(at(10_005)));
        assert!(!suspicion.expire(at(10_006)), "it is over already");
        assert!(!suspicion.end());
        hear(&mut suspicion, true, &[(10_007, Sign::Refused, Suspect(Refused))]);
        assert!(suspicion.end());
        assert_eq!(suspicion.evidence(), None);
    }
}
