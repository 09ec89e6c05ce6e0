//! A container as `GET /containers/ID/json` describes it, and what it means for a set of members. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::Deserialize;

use super::{
    super::{Member, WEIGHT, is_host, name},
    Source,
    signal::{self, TERMINATE},
};

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Container {
    /// 64 digits.
    pub id: String,
    /// With a leading `/`.
    pub name: String,
    pub(super) state: State,
    config: Config,
    network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct State {
    pub(super) running: bool,
    pub(super) paused: bool,
    pub(super) restarting: bool,
    /// Absent where the container has no health check.
    health: Option<Health>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Health {
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    labels: Option<HashMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

/// What a container is to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// One of its members; with what is wrong with its labels.
    Member(Member, Option<String>),
    /// Not yet, or no longer.
    None,
    /// It cannot be one, and why.
    Unfit(String),
}

impl Container {
    /// The number of the signal that asks it to stop.
    pub fn stop_signal(&self) -> i32 {
        let named = self.config.stop_signal.as_deref().filter(|signal| !signal.is_empty());
        named.and_then(signal::number).unwrap_or(TERMINATE)
    }

    /// What it is to the service of a source. `stopping`: it has been told to stop.
    pub fn part(&self, source: &Source, stopping: bool) -> Part {
        if !self.state.running || self.state.restarting {
            return Part::None;
        }
        let draining = match self.state.health.as_ref().map(|health| health.status.as_str()) {
            _ if stopping => Some("it has been told to stop"),
            _ if self.state.paused => Some("it is paused"),
            // It has not served yet, so nothing is to be drained.
            Some("starting") => return Part::None,
            Some("unhealthy") => Some("its health check says unhealthy"),
            _ => None,
        };
        let fit = self.address(source).and_then(|address| Ok(SocketAddr::new(address, self.port(source)?)));
        match fit {
            Ok(address) => {
                let (weight, wrong) = self.weight();
                let draining = draining.map(str::to_owned);
                Part::Member(Member { name: self.member_name(address), address, weight, draining }, wrong)
            }
            Err(wrong) => Part::Unfit(format!("container {}: {wrong}", self.shown())),
        }
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(|value| value.trim())
    }

    /// Its name as Docker's users know it.
    fn shown(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    fn member_name(&self, address: SocketAddr) -> String {
        let labelled = self.label("lb.name").and_then(name::given);
        let named = || name::given(self.shown());
        labelled.or_else(named).unwrap_or_else(|| name::of(address))
    }

    fn port(&self, source: &Source) -> Result<u16, String> {
        match self.label("lb.port") {
            None => Ok(source.port),
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => Ok(port),
                _ => Err(format!("its label lb.port=`{}` is no port", text.escape_debug())),
            },
        }
    }

    fn weight(&self) -> (u16, Option<String>) {
        let Some(text) = self.label("lb.weight") else { return (WEIGHT, None) };
        if let Ok(weight @ 0..=1000) = text.parse() {
            return (weight, None);
        }
        let text = text.escape_debug();
        let wrong = format!("its label lb.weight=`{text}` is not 0 to 1000, and {WEIGHT} is taken");
        (WEIGHT, Some(format!("container {}: {wrong}", self.shown())))
    }

    fn address(&self, source: &Source) -> Result<IpAddr, String> {
        let version = if source.ipv6 { "IPv6" } else { "IPv4" };
        let read = |network: &Network| {
            let address = if source.ipv6 {
                network.v6.parse::<Ipv6Addr>().map(IpAddr::V6)
            } else {
                network.v4.parse::<Ipv4Addr>().map(IpAddr::V4)
            };
            address.ok().filter(|address| is_host(*address))
        };
        let none = BTreeMap::new();
        let networks = self.network_settings.networks.as_ref().unwrap_or(&none);
        if let Some(wanted) = self.label("lb.network").or(source.network.as_deref()) {
            let network = networks.get(wanted);
            let network =
                network.ok_or_else(|| format!("it is not in the network `{}`", wanted.escape_debug()))?;
            return read(network)
                .ok_or_else(|| format!("it has no {version} address in the network `{wanted}`"));
        }
        let mut all = networks.iter().filter_map(|(name, network)| Some((name, read(network)?)));
        match (all.next(), all.next()) {
            (Some((_, address)), None) => Ok(address),
            (None, _) => Err(format!("it has no {version} address of its own")),
            (Some((one, _)), Some((two, _))) => {
                Err(format!("it is in the networks `{one}` and `{two}`, and no label lb.network says which"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            socket: "/run/docker.sock".into(),
            service: "web".to_owned(),
            port: 80,
            network: None,
            ipv6: false,
        }
    }

    /// A container that serves, with one of its values changed.
    fn container(pointer: &str, value: serde_json::Value) -> Container {
        let mut whole = serde_json::json!({
            "Id": "ab12", "Name": "/shop-Web-1",
            "State": { "Running": true, "Paused": false, "Restarting": false },
            "Config": { "Labels": { "lb.service": "web" }, "StopSignal": "SIGQUIT" },
            "NetworkSettings": { "Networks": {
                "shop": { "IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00:18::2" } } },
        });
        if let Some((parent, key)) = pointer.rsplit_once('/') {
            whole.pointer_mut(parent).unwrap()[key] = value;
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_containers_state_says_whether_it_serves() {
        let health = |status: &str| ("/State/Health", serde_json::json!({ "Status": status }));
        let on = serde_json::Value::Bool(true);
        let serving = Some(None);
        let table = [
            (("", on.clone()), false, serving),
            (health("healthy"), false, serving),
            (health("none"), false, serving),
            (health("starting"), false, None),
            (health("unhealthy"), false, Some(Some("its health check says unhealthy"))),
            (health("healthy"), true, Some(Some("it has been told to stop"))),
            (("/State/Paused", on.clone()), false, Some(Some("it is paused"))),
            (("/State/Restarting", on.clone()), false, None),
            (("/State/Running", serde_json::Value::Bool(false)), false, None),
            (("/State/Running", serde_json::Value::Bool(false)), true, None),
        ];
        for ((pointer, value), stopping, wanted) in table {
            let given = container(pointer, value.clone()).part(&source(), stopping);
            let wanted = wanted.map_or(Part::None, |draining| {
                let member = Member {
                    name: "shop-web-1".to_owned(),
                    address: ([172, 18, 0, 2], 80).into(),
                    weight: 100,
                    draining: draining.map(str::to_owned),
                };
                Part::Member(member, None)
            });
            assert_eq!(given, wanted, "{pointer} = {value}, stopping: {stopping}");
        }
    }

    #[test]
    fn labels_say_port_weight_name_and_network_or_what_is_wrong_with_them() {
        let label = |key: &str, value: &str| (format!("/Config/Labels/{key}"), serde_json::json!(value));
        let networks = |value| ("/NetworkSettings/Networks".to_owned(), value);
        let two =
            serde_json::json!({ "a": { "IPAddress": "172.18.0.2" }, "b": { "IPAddress": "172.19.0.2" } });
        let host = serde_json::json!({ "host": { "IPAddress": "" } });
        let table = [
            (label("lb.port", "9000"), "shop-web-1 172.18.0.2:9000 100"),
            (label("lb.port", "0"), "container shop-Web-1: its label lb.port=`0` is no port"),
            (label("lb.weight", "250"), "shop-web-1 172.18.0.2:80 250"),
            (
                label("lb.weight", "1001"),
                "shop-web-1 172.18.0.2:80 100; container shop-Web-1: its label lb.weight=`1001` is not 0 to 1000, \
                 and 100 is taken",
            ),
            (label("lb.name", "web1"), "web1 172.18.0.2:80 100"),
            (label("lb.name", "web 1"), "shop-web-1 172.18.0.2:80 100"),
            (label("lb.network", "shop"), "shop-web-1 172.18.0.2:80 100"),
            (label("lb.network", "db"), "container shop-Web-1: it is not in the network `db`"),
            (
                networks(two),
                "container shop-Web-1: it is in the networks `a` and `b`, and no label lb.network says which",
            ),
            (networks(host), "container shop-Web-1: it has no IPv4 address of its own"),
            (networks(serde_json::Value::Null), "container shop-Web-1: it has no IPv4 address of its own"),
            (
                ("/Name".to_owned(), serde_json::json!("/a-name-that-nobody-would-like-to-type-twice")),
                "172.18.0.2 172.18.0.2:80 100",
            ),
        ];
        for ((pointer, value), wanted) in table {
            let given = match container(&pointer, value).part(&source(), false) {
                Part::Member(Member { name, address, weight, .. }, wrong) => {
                    let wrong = wrong.map_or_else(String::new, |wrong| format!("; {wrong}"));
                    format!("{name} {address} {weight}{wrong}")
                }
                Part::Unfit(wrong) => wrong,
                Part::None => "none".to_owned(),
            };
            assert_eq!(given, wanted, "{pointer}");
        }
        let source = Source { ipv6: true, network: Some("shop".to_owned()), ..source() };
        let Part::Member(member, None) = container("", serde_json::Value::Null).part(&source, false) else {
            panic!("a member");
        };
        assert_eq!(member.address, "[fd00:18::2]:80".parse().unwrap());
    }
}
