//! Configurations for tests.

use std::{io, path::Path};

use crate::config::{Config, SecretSource, parse};

struct AnySecret;

impl SecretSource for AnySecret {
    fn file(&self, _: &Path) -> io::Result<String> {
        Ok("x".to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        Some("x".to_owned())
    }
}

/// What `text` says, whatever its secrets are.
pub fn config(text: &str) -> Config {
    parse(text, "lb.toml", &AnySecret).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A service `web` with these backends: name, address, and weight if it is not 100.
pub fn web(backends: &[&str]) -> Config {
    let backends: Vec<String> = backends
        .iter()
        .map(|backend| {
            let mut words = backend.split(' ');
            let (name, address) = (words.next().unwrap(), words.next().unwrap());
            let weight = words.next().unwrap_or("100");
            format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
        })
        .collect();
    config(&format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80/tcp\"\nbackends = [{}]\n",
        backends.join(", ")
    ))
}
