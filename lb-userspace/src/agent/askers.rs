//! From the configuration of a check to the question that its probe asks.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{
    config::{self, CheckKind, DatabaseTls, FpmScheme, FpmUrl, HttpCheck, TlsMode},
    probe::{
        Failure, FailureKind,
        galera::{self, ClusterStatus, Sample},
        http::{self, Expected},
        mysql::Encryption,
        php_fpm, tcp,
        tls::{Tls, TlsError, Trust},
    },
};

/// The ways to speak TLS, each made once and shared by all probes that speak so.
#[derive(Debug, Default)]
pub struct Ways {
    strict: Vec<(Trust, Tls)>,
    patient: Vec<(Trust, Tls)>,
}

impl Ways {
    fn strict(&mut self, trust: &Trust) -> Result<Tls, TlsError> {
        shared(&mut self.strict, trust, Tls::strict)
    }

    /// How a database server is spoken with.
    pub fn encryption(&mut self, tls: &DatabaseTls) -> Result<Encryption, TlsError> {
        let how = match tls.mode {
            TlsMode::Off => return Ok(Encryption::Off),
            TlsMode::Preferred => Encryption::Preferred,
            TlsMode::Required => Encryption::Required,
        };
        shared(&mut self.patient, &tls.trust, Tls::patient).map(how)
    }
}

fn shared(
    made: &mut Vec<(Trust, Tls)>,
    trust: &Trust,
    make: impl Fn(&Trust) -> Result<Tls, TlsError>,
) -> Result<Tls, TlsError> {
    if let Some((_, tls)) = made.iter().find(|(known, _)| known == trust) {
        return Ok(tls.clone());
    }
    let tls = make(trust)?;
    made.push((trust.clone(), tls.clone()));
    Ok(tls)
}

/// What is asked of one backend, again and again.
// One for each task, and never moved: a pointer to its parts would save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Asker {
    /// Somebody accepts connections.
    Tcp(SocketAddr),
    /// A page is as it should be.
    Http(Box<http::Target>),
    /// PHP-FPM answers.
    PhpFpm(Box<php_fpm::Url>),
    /// A database server answers, over a connection that stays.
    Mysql(Box<galera::Monitor>),
    /// It cannot be asked, for this reason.
    Nobody(String),
}

impl Asker {
    /// For the check of a backend at `address`.
    pub fn new(address: SocketAddr, check: &config::Check, ways: &mut Ways) -> Self {
        let to = |port: Option<u16>| SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
        match &check.kind {
            CheckKind::Tcp { port } => Self::Tcp(to(*port)),
            CheckKind::Http(page) => match target(to(page.port), page, ways) {
                Ok(target) => Self::Http(Box::new(target)),
                Err(why) => Self::Nobody(why),
            },
            CheckKind::PhpFpm { url } => match fpm_url(url, address, true) {
                Ok(url) => Self::PhpFpm(Box::new(url)),
                Err(failure) => Self::Nobody(failure.detail),
            },
            CheckKind::Mysql(login) => match ways.encryption(&login.tls) {
                Ok(encryption) => Self::Mysql(Box::new(
                    galera::Monitor::new(address, &login.user, login.password.expose(), check.timeout)
                        .encrypted(encryption),
                )),
                Err(error) => Self::Nobody(error.to_string()),
            },
        }
    }

    /// Asks once. A database server's answer is handed on, for it says how busy the server is.
    pub async fn ask(&mut self, timeout: Duration) -> Result<Option<Box<Sample>>, Failure> {
        match self {
            Self::Tcp(address) => tcp::probe(*address, timeout).await.map(|_| None),
            Self::Http(target) => http::probe(target, timeout).await.map(|_| None),
            Self::PhpFpm(url) => match php_fpm::status(url, timeout).await {
                // A locked scoreboard says that FPM is there and busy.
                Ok(_) | Err(Failure { kind: FailureKind::NoSample, .. }) => Ok(None),
                Err(failure) => Err(failure),
            },
            Self::Mysql(monitor) => serving(monitor.sample().await).map(|sample| Some(Box::new(sample))),
            Self::Nobody(why) => Err(Failure { kind: FailureKind::Local, detail: why.clone() }),
        }
    }
}

/// Whether a database server that answered serves. One that says itself that it does not is as certainly out as one that
/// refuses.
fn serving(answer: Result<Sample, Failure>) -> Result<Sample, Failure> {
    let not_ready = |detail| Err(Failure { kind: FailureKind::NotReady, detail });
    match answer {
        Ok(sample) if sample.maintenance => not_ready("says that it is in maintenance".to_owned()),
        Ok(sample) if sample.ready == Some(false) => not_ready("says wsrep_ready OFF".to_owned()),
        Ok(sample) if sample.cluster_status.is_some_and(|status| status != ClusterStatus::Primary) => {
            not_ready("says that it is not in the primary component of its cluster".to_owned())
        }
        Err(failure) if failure.kind == FailureKind::Offline => not_ready(failure.detail),
        answer => answer,
    }
}

fn target(address: SocketAddr, page: &HttpCheck, ways: &mut Ways) -> Result<http::Target, String> {
    let host = page.host.clone().unwrap_or_else(|| address.to_string());
    let expected = Expected {
        status: page.status.iter().map(|range| range.first..=range.last).collect(),
        header: page.expect_header.clone(),
        body: page.expect_body.clone(),
    };
    let target = http::Target::new(address, &page.path, host, expected).map_err(|error| error.to_string())?;
    let target = target.by(page.method);
    match &page.tls {
        None => Ok(target),
        Some(trust) => {
            let tls = ways.strict(trust).map_err(|error| error.to_string())?;
            target.over(tls).map_err(|error| error.to_string())
        }
    }
}

/// Where PHP-FPM's status page is for a backend.
pub fn fpm_url(url: &FpmUrl, backend: SocketAddr, through_pool: bool) -> Result<php_fpm::Url, Failure> {
    let address = url.endpoint(backend.ip());
    Ok(match url.scheme {
        FpmScheme::Fcgi => php_fpm::Url::Fcgi { addr: address, path: url.path.clone(), through_pool },
        FpmScheme::Http => php_fpm::Url::Http {
            target: http::Target::new(address, &url.path, address.to_string(), Expected::status(200..=200))
                .map_err(|error| Failure { kind: FailureKind::Local, detail: error.to_string() })?,
            through_pool,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_server_that_says_that_it_does_not_serve_is_certainly_out() {
        let offline = Failure { kind: FailureKind::Offline, detail: "offline".to_owned() };
        let cases: [(Result<Sample, Failure>, bool); 6] = [
            (Ok(Sample::default()), true),
            (
                Ok(Sample {
                    ready: Some(true),
                    cluster_status: Some(ClusterStatus::Primary),
                    ..Sample::default()
                }),
                true,
            ),
            (Ok(Sample { ready: Some(false), ..Sample::default() }), false),
            (Ok(Sample { cluster_status: Some(ClusterStatus::NonPrimary), ..Sample::default() }), false),
            (Ok(Sample { maintenance: true, ..Sample::default() }), false),
            (Err(offline), false),
        ];
        for (answer, serves) in cases {
            let said = format!("{answer:?}");
            let judged = serving(answer).map(drop).map_err(|failure| failure.kind);
            assert_eq!(judged, if serves { Ok(()) } else { Err(FailureKind::NotReady) }, "{said}");
        }
    }
}
