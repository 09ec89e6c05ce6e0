//! TLS to a server, and what is believed of its certificate. By rustls, which speaks TLS 1.2 and 1.3 only.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::peer::{Peer, say_at_once};
use super::stream::Stream;
use super::{Failure, FailureKind};

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those of the authorities that this system trusts.
    System,
    /// Those of these authorities and of no other.
    Authorities(Authorities),
    /// All of them: the connection is encrypted, and nobody knows with whom.
    Anybody,
}

/// Certificates of authorities; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads a PEM file's certificates. `None` if there is none, or one that cannot be read.
    pub fn from_pem(text: &str) -> Option<Self> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = read.ok().filter(|all| !all.is_empty())?;
        let mut store = RootCertStore::empty();
        certificates.iter().try_for_each(|one| store.add(one.clone())).ok()?;
        Some(Self(certificates))
    }
}

/// Why no TLS can be spoken, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The system trusts nobody.
    #[error(
        "this system has no certificates of authorities; install the package ca-certificates, or name a `ca-file`"
    )]
    NoAuthorities,
    /// The authorities cannot be used.
    #[error("the certificates of authorities cannot be used: {why}")]
    Unusable {
        /// In the library's words.
        why: String,
    },
}

/// One way to speak TLS, shared by all probes that speak so. Remembers sessions, so that not each probe costs a whole
/// handshake.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

impl Tls {
    /// For servers whose certificate must be for the name or the address that was asked for, or there is no handshake.
    pub fn strict(trust: &Trust) -> Result<Self, TlsError> {
        let verifier = verifier(trust)?;
        Self::with(verifier.clone(), verifier)
    }

    /// For database servers: the handshake goes through whatever the certificate is, and [`Tls::judge`] says afterwards
    /// what it is worth, for a server counts a handshake that ends half-way against this host. The name in a certificate
    /// does not matter, for who asks database servers by address finds no address there (MySQL's `VERIFY_CA`).
    pub fn patient(trust: &Trust) -> Result<Self, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(ChainOnly(verifier(trust)?));
        Self::with(Arc::new(Later(verifier.clone())), verifier)
    }

    fn with(
        in_handshake: Arc<dyn ServerCertVerifier>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable { why: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(in_handshake)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// Speaks TLS over an established connection, before the peer's deadline. `name` is what is asked for (SNI) and what
    /// the certificate must be for.
    pub(super) async fn begin(
        &self,
        peer: &Peer,
        stream: TcpStream,
        name: &ServerName<'static>,
    ) -> Result<Stream, Failure> {
        // The last message of the handshake is followed by the first that it carries.
        say_at_once(&stream);
        let connector = TlsConnector::from(self.config.clone());
        // A handshake that the library refuses is told in its own words, all else in those of the connection.
        let handshake = async {
            match connector.connect(name.clone(), stream).await {
                Ok(stream) => Ok(Ok(stream)),
                Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                    Some(inner) => Ok(Err(inner.clone())),
                    None => Err(error),
                },
            }
        };
        match peer.step("the TLS handshake is not complete", handshake).await? {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(peer.failure(FailureKind::BadAnswer, sentence(&error, name))),
        }
    }

    /// Whether a [patient](Tls::patient) handshake's certificate is believed.
    pub(super) fn judge(
        &self,
        peer: &Peer,
        stream: &Stream,
        name: &ServerName<'static>,
    ) -> Result<(), Failure> {
        let Stream::Tls(stream) = stream else { return Ok(()) };
        let judged = match stream.get_ref().1.peer_certificates() {
            Some([own, others @ ..]) => {
                self.verifier.verify_server_cert(own, others, name, &[], UnixTime::now())
            }
            _ => Err(Error::NoCertificatesPresented),
        };
        judged.map(drop).map_err(|error| peer.failure(FailureKind::MonitorDenied, sentence(&error, name)))
    }
}

/// The name that stands for an address or a host's name, its port left out. `None` if it can be neither.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let whole = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = whole.parse::<IpAddr>() {
        return Some(ServerName::from(address));
    }
    let (name, _) = host.rsplit_once(':').unwrap_or((host, ""));
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::from(address)),
        Err(_) => ServerName::try_from(name.to_owned()).ok(),
    }
}

/// Completes the sentence that begins with the server's address.
fn sentence(error: &Error, name: &ServerName<'_>) -> String {
    let name = name.to_str();
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "showed a certificate of an unknown authority: name the authority's file in `ca-file`".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("showed a certificate that is not for {name}: say in `host` what it is for"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "showed a certificate that has expired".to_owned()
        }
        Error::InvalidCertificate(why) => format!("showed a certificate that is not valid: {why}"),
        Error::InvalidMessage(_) => "does not speak TLS".to_owned(),
        other => format!("speaks no TLS that can be understood: {other}"),
    }
}

/// Who judges certificates, names included.
fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let found = match trust {
        Trust::Anybody => {
            let schemes = provider.signature_verification_algorithms.supported_schemes();
            return Ok(Arc::new(Believer { schemes }));
        }
        Trust::Authorities(Authorities(certificates)) => certificates.clone(),
        Trust::System => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found);
    if store.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
    Ok(verifier.map_err(|error| TlsError::Unusable { why: error.to_string() })?)
}

/// The methods of a verifier that leaves signatures to the one inside it.
macro_rules! signatures_by_the_inner_verifier {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

/// Believes every certificate. Who could be anybody proves nothing by a signature either.
#[derive(Debug)]
struct Believer {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Believes what an authority has signed, whatever it is for. The library looks at the name last, so that a wrong name
/// means that all else is right.
#[derive(Debug)]
struct ChainOnly(Arc<dyn ServerCertVerifier>);

/// Lets every certificate pass for now, but no server that does not hold the key of its own.
#[derive(Debug)]
struct Later(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    signatures_by_the_inner_verifier!();
}

impl ServerCertVerifier for Later {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_the_inner_verifier!();
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
