//! One question to a few servers: over UDP, and over TCP where the answer does not fit (RFC 7766).

use std::{io, net::SocketAddr, time::Duration};

use domain::base::{
    Message, MessageBuilder,
    iana::{Rcode, Rtype},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::DnsName;

/// What fits an Ethernet frame with room for tunnels, as the DNS Flag Day of 2020 settled it; answers above come by TCP.
const UDP_SIZE: u16 = 1232;
/// How long each server has in the first round, and in the second: a datagram may be lost, a server be slow.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// An answer, whole, with no other code than NOERROR and NXDOMAIN.
pub type Answer = Message<Vec<u8>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody to ask.
    #[error("no DNS server is configured")]
    Nobody,
    /// No word within the time for it.
    #[error("the DNS server {server} does not answer")]
    Silent {
        /// Who.
        server: SocketAddr,
    },
    /// It cannot be spoken with.
    #[error("the DNS server {server} is not reached: {kind}")]
    Unreached {
        /// Who.
        server: SocketAddr,
        /// Why.
        kind: io::ErrorKind,
    },
    /// It says that it cannot say.
    #[error("the DNS server {server} answers {code}")]
    Refused {
        /// Who.
        server: SocketAddr,
        /// SERVFAIL, REFUSED, …
        code: Rcode,
    },
    /// What it says is no answer.
    #[error("the DNS server {server} answers what cannot be read")]
    Garbled {
        /// Who.
        server: SocketAddr,
    },
}

/// Asks one server after the other until one has an answer; all of them twice. Takes at most three seconds a server.
///
/// Errors: what the last one said.
pub async fn ask(servers: &[SocketAddr], name: &DnsName, kind: Rtype) -> Result<Answer, AskError> {
    let mut error = AskError::Nobody;
    for patience in PATIENCE {
        for server in servers {
            match timeout(patience, exchange(*server, name, kind)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => error = failure,
                Err(_elapsed) => error = AskError::Silent { server: *server },
            }
        }
    }
    Err(error)
}

async fn exchange(server: SocketAddr, name: &DnsName, kind: Rtype) -> Result<Answer, AskError> {
    let unreached = |error: io::Error| AskError::Unreached { server, kind: error.kind() };
    let garbled = || AskError::Garbled { server };
    let question = question(name, kind).ok_or_else(garbled)?;
    let mut answer = by_udp(server, &question).await.map_err(unreached)?;
    if answer.header().tc() {
        answer = by_tcp(server, &question).await.map_err(unreached)?.ok_or_else(garbled)?;
    }
    match answer.header().rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN if answer.header().tc() => Err(garbled()),
        Rcode::NOERROR | Rcode::NXDOMAIN => Ok(answer),
        code => Err(AskError::Refused { server, code }),
    }
}

/// A question with a number that nobody can guess; the socket's port is the other half of it (RFC 5452).
fn question(name: &DnsName, kind: Rtype) -> Option<Answer> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(rand::random());
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, kind)).ok()?;
    let mut builder = builder.additional();
    let sized = builder.opt(|opt| {
        opt.set_udp_payload_size(UDP_SIZE);
        Ok(())
    });
    sized.ok()?;
    Message::from_octets(builder.finish()).ok()
}

/// Waits for the answer to this very question; whatever else arrives is passed over.
async fn by_udp(server: SocketAddr, question: &Answer) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // The kernel lets nobody else's datagrams in, and tells when nobody listens there.
    socket.connect(server).await?;
    socket.send(question.as_slice()).await?;
    let mut bytes = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if let Ok(answer) = Message::from_octets(bytes[..length].to_vec())
            && answer.is_answer(question)
        {
            return Ok(answer);
        }
    }
}

/// `None`: it is not the answer to this question.
async fn by_tcp(server: SocketAddr, question: &Answer) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect(server).await?;
    let bytes = question.as_slice();
    // A question is shorter than 512 bytes: one name and one option. Both parts leave in one segment.
    let length = (bytes.len() as u16).to_be_bytes();
    stream.write_all(&[&length, bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(Message::from_octets(bytes).ok().filter(|answer| answer.is_answer(question)))
}
