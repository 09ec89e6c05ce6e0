//! What probes saw, on its way to the controller.
//!
//! Nearly all of it is that a backend is well, a thousand times a second. Told one by one, each would wake the controller's
//! thread up, for less work than the waking is. So good news waits for more of its kind, and all else takes it along at
//! once: nothing is told out of its order.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Event;

/// How long good news may wait; short beside any interval of probes.
const PATIENCE: Duration = Duration::from_millis(10);
/// Told together at most.
const MOST: usize = 4096;

/// Hands on what is seen until nobody sees or hears anything any more.
pub(super) async fn hand_on(mut seen: mpsc::UnboundedReceiver<Event>, events: mpsc::UnboundedSender<Event>) {
    let mut held = Vec::new();
    while seen.recv_many(&mut held, MOST).await > 0 {
        let until = Instant::now() + PATIENCE;
        while held.len() < MOST && held.iter().all(may_wait) {
            match timeout_at(until, seen.recv_many(&mut held, MOST)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
        for event in held.drain(..) {
            if events.send(event).is_err() {
                return;
            }
        }
    }
}

fn may_wait(event: &Event) -> bool {
    matches!(event, Event::Checked { result: Ok(()), .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{keys::Keys, probers::BackendAt},
        probe::{Failure, FailureKind},
    };

    #[tokio::test(start_paused = true)]
    async fn good_news_waits_for_more_and_bad_news_takes_it_along_at_once() {
        let (seen, inbox) = mpsc::unbounded_channel();
        let (events, mut told) = mpsc::unbounded_channel();
        tokio::spawn(hand_on(inbox, events));
        let mut keys = Keys::default();
        let at = BackendAt { service: keys.next(), backend: keys.next() };
        let checked = |result| Event::Checked { at, begun: std::time::Instant::now(), result };
        let failure = Failure { kind: FailureKind::Refused, detail: "refused".to_owned() };
        for (sent, waits) in [
            (vec![Ok(())], PATIENCE),
            (vec![Ok(()), Ok(()), Ok(())], PATIENCE),
            (vec![Err(failure.clone())], Duration::ZERO),
            (vec![Ok(()), Err(failure), Ok(())], Duration::ZERO),
        ] {
            let begun = Instant::now();
            for result in sent.clone() {
                seen.send(checked(result)).unwrap();
            }
            for wanted in sent {
                let Some(Event::Checked { result, .. }) = told.recv().await else { panic!("an answer") };
                assert_eq!((result, begun.elapsed().as_millis()), (wanted, waits.as_millis()));
            }
        }
        drop(seen);
        assert!(told.recv().await.is_none(), "nobody sees anything any more");
    }
}
