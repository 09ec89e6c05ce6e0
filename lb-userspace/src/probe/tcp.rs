//! The TCP probe: somebody accepts connections there.
//!
//! Not for MySQL: a server counts a bare connection as an aborted login and in the end blocks the host (error 1129).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Failure;
use super::peer::Peer;

/// Connects and closes in good order. The answer is the time that the connection took.
pub async fn probe(addr: SocketAddr, timeout: Duration) -> Result<Duration, Failure> {
    let peer = Peer::new(addr, timeout);
    let mut stream = peer.connect().await?;
    let elapsed = peer.elapsed();
    // A banner left unread would turn the close into a RST, which some servers log as an error.
    let _ = stream.try_read(&mut [0; 4096]);
    // The connection has already proved what was asked, so a failing farewell changes nothing.
    let _ = stream.shutdown().await;
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::FailureKind;
    use super::super::testing::{SECOND, refusing_address};
    use super::*;

    #[tokio::test]
    async fn a_listener_is_up_and_sees_a_clean_end_of_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answer, accepted) = tokio::join!(probe(addr, SECOND), listener.accept());
        assert!(answer.unwrap() < SECOND);
        let (mut stream, _) = accepted.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "FIN, not RST");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_certain() {
        let failure = probe(refusing_address(), SECOND).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(!failure.doubtful());
        assert!(failure.to_string().contains("refused"), "{failure}");
    }

    #[tokio::test]
    async fn a_full_accept_queue_times_out_and_is_doubtful() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let short = Duration::from_millis(100);
        let mut last = Ok(Duration::ZERO);
        let mut held = Vec::new();
        // Linux queues backlog + 1 connections and then lets SYNs go unanswered.
        for _ in 0..8 {
            held.push(tokio::time::timeout(short, tokio::net::TcpStream::connect(addr)).await);
            last = probe(addr, short).await;
            if last.is_err() {
                break;
            }
        }
        let failure = last.unwrap_err();
        assert_eq!(failure.kind, FailureKind::TimedOut);
        assert!(failure.doubtful());
    }
}
