//! Lines of agents, and agents that say none.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::super::testing::{Liar, SECOND, SHORT, refusing_address};
use super::*;

fn orders() -> Orders {
    Orders::default()
}

fn down(said: &str) -> Health {
    Health::Down(said.to_owned())
}

#[test]
fn words_come_in_any_order_and_the_last_of_a_class_wins() {
    let percent = |percent| Some(Weight::Percent(percent));
    for (line, want) in [
        ("up\n", Orders { health: Some(Health::Up), ..orders() }),
        ("UP 50%\n", Orders { health: Some(Health::Up), weight: percent(50), ..orders() }),
        ("50% up\r\n", Orders { health: Some(Health::Up), weight: percent(50), ..orders() }),
        (
            "ready,up,75%,maxconn:40",
            Orders {
                admin: Some(Admin::Ready),
                health: Some(Health::Up),
                weight: percent(75),
                max_connections: Some(Some(40)),
                unknown: Vec::new(),
            },
        ),
        ("drain\tready drain", Orders { admin: Some(Admin::Drain), ..orders() }),
        ("maint", Orders { admin: Some(Admin::Maint), ..orders() }),
        ("10% 20% weight:30", Orders { weight: Some(Weight::Exactly(30)), ..orders() }),
        ("weight:30 20%", Orders { weight: percent(20), ..orders() }),
        ("0%", Orders { weight: percent(0), ..orders() }),
        ("maxconn:0", Orders { max_connections: Some(None), ..orders() }),
        ("down", Orders { health: Some(down("down")), ..orders() }),
        ("up stopped", Orders { health: Some(down("stopped")), ..orders() }),
        ("down up", Orders { health: Some(Health::Up), ..orders() }),
        ("fail#disk, 99% full\n", Orders { health: Some(down("fail: disk, 99% full")), ..orders() }),
        ("up # all is well", Orders { health: Some(Health::Up), ..orders() }),
        // Only the first line counts.
        ("up\ndown\n", Orders { health: Some(Health::Up), ..orders() }),
        ("\nup", orders()),
        // More than there can be is as much as there can be.
        ("99999999999%", Orders { weight: percent(1_000), ..orders() }),
        ("maxconn:99999999999", Orders { max_connections: Some(Some(u32::MAX)), ..orders() }),
    ] {
        assert_eq!(parse(line.as_bytes()), want, "{line:?}");
    }
}

#[test]
fn what_is_no_word_is_told_and_changes_nothing() {
    for word in ["%", "-5%", "5.5%", "weight:", "weight:-1", "maxconn:x", "upp", "HTTP/1.1", "\u{1b}[31m"] {
        let read = parse(format!("{word} up").as_bytes());
        assert_eq!(read.health, Some(Health::Up), "{word}");
        assert_eq!(read.unknown.len(), 1, "{word}");
        assert_eq!(Orders { unknown: Vec::new(), health: None, ..read }, orders(), "{word}");
    }
}

proptest! {
    #[test]
    fn no_line_panics_and_what_is_told_of_it_is_printable(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let read = parse(&line);
        let told = read.unknown.concat() + &format!("{:?}", read.health);
        prop_assert!(!told.chars().any(char::is_control), "{told:?}");
    }
}

#[tokio::test]
async fn an_agent_is_believed_with_and_without_the_end_of_its_line() {
    for words in ["up 50%\n", "up 50%"] {
        let agent = Liar::saying(words.as_bytes(), false).await;
        let want = Orders { health: Some(Health::Up), weight: Some(Weight::Percent(50)), ..orders() };
        assert_eq!(ask(agent.addr, SECOND).await.unwrap(), want);
    }
    // One that does not close: its line is enough.
    let agent = Liar::new(|mut stream| async move {
        let _ = stream.write_all(b"drain\n").await;
        tokio::time::sleep(10 * SECOND).await;
    })
    .await;
    assert_eq!(ask(agent.addr, SECOND).await.unwrap().admin, Some(Admin::Drain));
}

#[tokio::test]
async fn whoever_is_no_agent_orders_nothing_and_gets_a_name() {
    use FailureKind as K;
    for (words, kind) in [
        ("", K::BadAnswer),
        ("\n", K::BadAnswer),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", K::BadAnswer),
        (&"x".repeat(5_000), K::TooLarge),
    ] {
        let agent = Liar::saying(words.as_bytes(), false).await;
        assert_eq!(ask(agent.addr, SECOND).await.unwrap_err().kind, kind, "{words}");
    }
    let silent = Liar::silent().await;
    assert_eq!(ask(silent.addr, SHORT).await.unwrap_err().kind, K::TimedOut);
    assert_eq!(ask(refusing_address(), SECOND).await.unwrap_err().kind, K::Refused);
}
