//! How many probes run at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::{
    agent::keys::Keys,
    config::{SystemSecrets, Target, parse},
};

#[tokio::test]
async fn probes_that_wait_for_silence_are_bounded_and_none_starves() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut probers = Probers::new(events);
    probers.turns = Arc::new(Semaphore::new(3));
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"s\"\naddress = \"203.0.113.1:80/tcp\"\n\
         check = {{ type = \"http\", interval = \"200ms\", timeout = \"100ms\" }}\n\
         backends = [{{ name = \"b\", address = \"127.0.0.1:{port}\" }}]"
    );
    let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap();
    let Target::Backends { backends, check, .. } = &config.services[0].target else { unreachable!() };
    let mut keys = Keys::default();
    let tasks: Vec<Hasten> = (0..12)
        .map(|_| {
            probers.backend(
                BackendAt { service: keys.next(), backend: keys.next() },
                backends[0].address,
                check,
                None,
                None,
            )
        })
        .collect();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (open.clone(), most.clone());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (open, most) = (counted.0.clone(), counted.1.clone());
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::spawn(async move {
                // Says nothing until the probe has gone.
                while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let mut seen = std::collections::BTreeMap::<Key, usize>::new();
    while seen.len() < 12 || seen.values().any(|times| *times < 2) {
        let Some(Event::Checked { at, result, .. }) = inbox.recv().await else { unreachable!() };
        assert_eq!(result.unwrap_err().kind, FailureKind::TimedOut);
        *seen.entry(at.backend).or_default() += 1;
    }
    // The server hears of an end when the next probe may have come already.
    let most = most.load(Ordering::SeqCst);
    assert!((3..=6).contains(&most), "{most} at once");
    server.abort();
    // And what is dropped is probed no more, but for what was on its way.
    drop(tasks);
    let mut late = 0;
    while tokio::time::timeout(Duration::from_millis(400), inbox.recv()).await.is_ok() {
        late += 1;
        assert!(late <= 12, "probes go on");
    }
}
