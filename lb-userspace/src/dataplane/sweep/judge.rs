//! What becomes of a connection: pure.

use lb_common::{
    TIME_WAIT, Ticks,
    abi::{TCP, backend_state, mode},
    cell::{Owner, Phase, Side},
};

use crate::dataplane::desired::Timeouts;

/// How long the ends of a cut connection have to answer: four questions in two seconds, and time to be begun with.
const PATIENCE: Ticks = Ticks::from_millis(3_000);

/// How long a client whose server is not seen is asked whether it has a connection at all: by three sweeps.
const QUESTIONS: Ticks = Ticks::from_millis(2_500);

/// What holds for the connections of a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// One of `abi::backend_state`.
    pub(super) state: u8,
    /// One of `abi::mode`.
    pub(super) mode: u8,
    /// Protocol number.
    pub(super) protocol: u8,
    /// Its service's time-outs.
    pub(super) timeouts: Timeouts,
    /// The server's id; 0: none.
    pub(super) server: u16,
    /// The service's id.
    pub(super) service: u16,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing.
    Keep,
    /// Its client is to be asked whether there is a connection: its answer promotes it.
    Ask,
    /// It is to be cut: marked, handed out, and kept until both ends know.
    Cut,
    /// It ends.
    End,
}

impl Terms {
    /// After how much silence a connection has run out.
    pub(super) const fn limit(&self, owner: Owner) -> Ticks {
        match owner.phase() {
            Phase::Established if self.protocol != TCP => self.timeouts.udp,
            Phase::Established if owner.is_closing() => self.timeouts.closing,
            Phase::Established => self.timeouts.established,
            Phase::Closed => TIME_WAIT,
            _ => self.timeouts.embryonic,
        }
    }

    /// Whether both ends of a connection may believe that they have one. Where the server is not seen, that begins with
    /// the client's second packet: it has been answered, or it was forged.
    const fn is_conversation(&self, owner: Owner) -> bool {
        match owner.phase() {
            Phase::Established => true,
            Phase::Answered => mode::is_one_sided(self.mode),
            _ => false,
        }
    }
}

/// Judge a held connection. `silent` says how long no end has spoken; it is asked only where that matters. `handed`:
/// for how long it has been handed out to be cut. `asked`: for how long its client has been asked.
pub(super) fn judge(
    terms: Option<&Terms>,
    owner: Owner,
    handed: Option<Ticks>,
    asked: Option<Ticks>,
    silent: impl FnOnce(Ticks) -> bool,
) -> Judgement {
    let Some(terms) = terms.filter(|terms| terms.state != backend_state::ABSENT) else {
        return Judgement::End;
    };
    let tcp = terms.protocol == TCP;
    if owner.is_cut() {
        let both = owner.knows(Side::Client) && owner.knows(Side::Server);
        return match handed {
            _ if both || !tcp => Judgement::End,
            Some(since) if since.at_least(PATIENCE) => Judgement::End,
            Some(_) => Judgement::Keep,
            None => Judgement::Cut,
        };
    }
    if terms.state == backend_state::CUT {
        return if tcp && terms.is_conversation(owner) { Judgement::Cut } else { Judgement::End };
    }
    if !silent(terms.limit(owner)) {
        return Judgement::Keep;
    }
    match owner.phase() {
        _ if !tcp => Judgement::End,
        Phase::Established => Judgement::Cut,
        // It has not spoken since its first second. Forgotten, it would be taken to another server when it does.
        _ if terms.is_conversation(owner) && !asked.is_some_and(|since| since.at_least(QUESTIONS)) => {
            Judgement::Ask
        }
        _ => Judgement::End,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Be16, Be32, abi::UDP};

    use super::*;

    const SECOND: Ticks = Ticks::from_millis(1_000);

    fn terms(state: u8, protocol: u8) -> Terms {
        let timeouts = Timeouts {
            established: Ticks::from_millis(3_600_000),
            embryonic: Ticks::from_millis(10_000),
            closing: Ticks::from_millis(60_000),
            udp: Ticks::from_millis(30_000),
        };
        Terms { state, mode: mode::SNAT, protocol, timeouts, server: 0, service: 0 }
    }

    fn held(phase: Phase) -> Owner {
        Owner::next(Owner(0), Be32::from_host(0x0a00_0001), Be16::from_host(4000), phase)
    }

    #[test]
    fn a_connection_is_judged_by_its_backend_its_phase_and_its_silence() {
        use Judgement::{Ask, Cut, End, Keep};
        let active = |protocol| Some(terms(backend_state::ACTIVE, protocol));
        let cut = |protocol| Some(terms(backend_state::CUT, protocol));
        let told = held(Phase::Established).told(Side::Client);
        let marked = held(Phase::Established).cut();
        let direct = |state| Some(Terms { mode: mode::DSR, ..terms(state, TCP) });
        for (what, terms, owner, handed, silent_for, judgement) in [
            ("an unknown backend", None, held(Phase::Established), None, 0, End),
            (
                "an absent one",
                Some(terms(backend_state::ABSENT, TCP)),
                held(Phase::Established),
                None,
                0,
                End,
            ),
            ("a fresh SYN", active(TCP), held(Phase::Embryonic), None, 9, Keep),
            ("a SYN that got nowhere", active(TCP), held(Phase::Embryonic), None, 11, End),
            ("an answer never proven", active(TCP), held(Phase::Answered), None, 11, End),
            ("an idle connection", active(TCP), held(Phase::Established), None, 3_599, Keep),
            ("one idle for too long", active(TCP), held(Phase::Established), None, 3_601, Cut),
            ("a closed one, still resting", active(TCP), held(Phase::Closed), None, 65, Keep),
            ("a closed one, at its end", active(TCP), held(Phase::Closed), None, 67, End),
            ("a talk over UDP", active(UDP), held(Phase::Established), None, 29, Keep),
            ("one that has ended", active(UDP), held(Phase::Established), None, 31, End),
            ("an unanswered datagram", active(UDP), held(Phase::Embryonic), None, 11, End),
            (
                "a draining backend's",
                Some(terms(backend_state::CLOSED_TO_NEW, TCP)),
                held(Phase::Established),
                None,
                9,
                Keep,
            ),
            ("a cut backend's", cut(TCP), held(Phase::Established), None, 0, Cut),
            (
                "one whose server is not seen, since a moment ago",
                direct(backend_state::CUT),
                held(Phase::Answered),
                None,
                0,
                Cut,
            ),
            (
                "a SYN whose server is not seen",
                direct(backend_state::CUT),
                held(Phase::Embryonic),
                None,
                0,
                End,
            ),
            (
                "one whose server is not seen, silent since its first second",
                direct(backend_state::ACTIVE),
                held(Phase::Answered),
                None,
                11,
                Ask,
            ),
            ("its handshakes", cut(TCP), held(Phase::Answered), None, 0, End),
            ("its datagrams", cut(UDP), held(Phase::Established), None, 0, End),
            ("cut, not handed out", cut(TCP), marked, None, 0, Cut),
            ("cut and handed out", active(TCP), marked, Some(SECOND), 3_601, Keep),
            ("cut, one end knows", active(TCP), told, Some(SECOND), 0, Keep),
            ("cut, both know", active(TCP), told.told(Side::Server), Some(SECOND), 0, End),
            ("cut, an end is mute", active(TCP), told, Some(PATIENCE), 0, End),
        ] {
            let silent = |limit: Ticks| Ticks::from_millis(silent_for * 1_000).at_least(limit);
            assert_eq!(judge(terms.as_ref(), owner, handed, None, silent), judgement, "{what}");
        }
    }

    #[test]
    fn a_client_that_does_not_answer_has_no_connection() {
        let direct = Terms { mode: mode::IPIP, ..terms(backend_state::ACTIVE, TCP) };
        for (asked, judgement) in
            [(None, Judgement::Ask), (Some(SECOND), Judgement::Ask), (Some(QUESTIONS), Judgement::End)]
        {
            assert_eq!(judge(Some(&direct), held(Phase::Answered), None, asked, |_| true), judgement);
        }
        let seen = terms(backend_state::ACTIVE, TCP);
        assert_eq!(judge(Some(&seen), held(Phase::Answered), None, None, |_| true), Judgement::End);
    }

    #[test]
    fn one_sides_fin_shortens_the_time() {
        let signs = lb_common::cell::Signs { fin: true, ..Default::default() };
        let owner = held(Phase::Established).after(Side::Client, signs);
        assert_eq!(terms(backend_state::ACTIVE, TCP).limit(owner), Ticks::from_millis(60_000));
    }
}
