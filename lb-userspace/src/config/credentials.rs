//! How an agent is let in, and whom it believes: passwords and certificates.

use std::path::Path;

use super::model::{DatabaseTls, TlsMode};
use super::secret::{Secret, SecretSource, exposed};
use super::table::Section;
use super::value::Fault;
use crate::probe::tls::{Authorities, Trust};

/// The keys of a login at a database server.
pub(super) const LOGIN_KEYS: &[&str] = &["user", "password-file", "password-env", "tls", "ca-file"];

const MODES: [(&str, TlsMode); 3] =
    [("off", TlsMode::Off), ("preferred", TlsMode::Preferred), ("required", TlsMode::Required)];

/// `password-file` or `password-env`. The messages show nothing of it.
pub(super) fn password(section: &Section<'_>, secrets: &dyn SecretSource) -> Option<Secret> {
    section.refuse(
        "password",
        "a password does not belong into this file",
        r#"put it into a file of its own and write password-file = "/etc/lb/db.pw", or use password-env"#,
    );
    if section.has("password-file") && section.has("password-env") {
        let fault = Fault::new("two passwords, from a file and from the environment", "keep one of them");
        section.add("password-env", fault);
        return None;
    }
    if section.has("password-env") {
        let variable = section.parsed("password-env", r#""LB_DB_PASSWORD""#, |name| {
            let unset = || {
                let wrong = format!("the environment has no variable `{}`", name.escape_debug());
                Fault::new(wrong, "set it for the agent, or use password-file")
            };
            secrets.variable(name).ok_or_else(unset).and_then(|text| one_line(&text))
        });
        return variable.map(|secret| secret.value);
    }
    if !section.has("password") && !section.meant("password-env") {
        section.require(
            "password-file",
            r#"password-file = "/etc/lb/db.pw", or password-env = "LB_DB_PASSWORD""#,
        );
    }
    let file = section.parsed("password-file", r#""/etc/lb/db.pw""#, |path| {
        let unreadable = |error| {
            let wrong = format!("`{}` cannot be read ({error})", path.escape_debug());
            Fault::new(wrong, "write the password into it, readable to the agent only")
        };
        secrets.file(Path::new(path)).map_err(unreadable).and_then(|text| one_line(&text))
    });
    if let Some(path) = section.text("password-file", "").filter(|_| file.is_some())
        && let Some(open) = exposed(Path::new(path.value), secrets)
    {
        section.report().note(path.at, open);
    }
    file.map(|secret| secret.value)
}

/// A password without the newline that editors add. The message shows nothing of it.
fn one_line(text: &str) -> Result<Secret, Fault> {
    const RIGHT: &str = "write the password on one line";
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Fault::new("the password there is empty", RIGHT));
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err(Fault::new("there is more than one line", RIGHT));
    }
    Ok(Secret::new(line))
}

/// `tls` and `ca-file` of a login at a database server. Without a file every certificate is believed, as MySQL's own
/// clients do.
pub(super) fn database_tls(section: &Section<'_>, secrets: &dyn SecretSource) -> DatabaseTls {
    let mode = section.choice("tls", &MODES).unwrap_or_default();
    if mode == TlsMode::Off {
        section.refuse(
            "ca-file",
            r#"ca-file: nothing is encrypted with tls = "off""#,
            "leave one of them out",
        );
    }
    let trust = ca_file(section, secrets).map_or(Trust::Anybody, Trust::Authorities);
    DatabaseTls { mode, trust }
}

/// `ca-file` and `verify` of a check over HTTPS.
pub(super) fn web_trust(section: &Section<'_>, secrets: &dyn SecretSource) -> Trust {
    let authorities = ca_file(section, secrets);
    if section.switch("verify") == Some(false) {
        let wrong = "ca-file: nobody's certificate is looked at with verify = false";
        section.refuse("ca-file", wrong, "leave one of them out");
        return Trust::Anybody;
    }
    authorities.map_or(Trust::System, Trust::Authorities)
}

fn ca_file(section: &Section<'_>, secrets: &dyn SecretSource) -> Option<Authorities> {
    let file = section.parsed("ca-file", r#""/etc/lb/ca.pem""#, |path| {
        let text = secrets.file(Path::new(path)).map_err(|error| {
            let wrong = format!("`{}` cannot be read ({error})", path.escape_debug());
            Fault::new(wrong, "name the PEM file of the authority that signs the servers' certificates")
        })?;
        let none = || {
            let wrong = format!("`{}` holds no certificates of authorities", path.escape_debug());
            Fault::new(wrong, "write them into it in PEM, from BEGIN CERTIFICATE to END CERTIFICATE")
        };
        Authorities::from_pem(&text).ok_or_else(none)
    });
    file.map(|authorities| authorities.value)
}
