//! Routers, routes, small links and the kernel's settings.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::error::{Context, Error, Result};
use super::{Family, Host, Lab, PREFIX_LENGTH, PREFIX_LENGTH_6};

impl Lab {
    /// Adds a host that forwards between segments: `eth0`, `eth1`, … have these addresses.
    pub fn router(&self, name: &str, addresses: &[Ipv4Addr]) -> Result<Host> {
        let missing = || Error::Missing { program: format!("an address for the router {name}") };
        let (first, others) = addresses.split_first().ok_or_else(missing)?;
        let router = self.host(name, *first)?;
        for (number, address) in (1..).zip(others) {
            router.plug(&format!("eth{number}"), *address)?;
        }
        router.forward()?;
        Ok(router)
    }
}

impl Host {
    /// Writes a setting below /proc/sys/net of this host, such as `ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        // The kernel answers by the network namespace of the thread that opens the file.
        self.enter(|| fs::write(&path, value))?.context(|| format!("cannot write {value} to {path}"))
    }

    /// A bridge of the host's own, as a container engine makes one, with an address.
    pub fn add_bridge(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let kind = ["type", "bridge", "forward_delay", "0", "stp_state", "0", "mcast_snooping", "0"];
        self.machine().ip(&[&["link", "add", name][..], &kind].concat())?;
        self.machine().ip(&["address", "add", &format!("{address}/{PREFIX_LENGTH}"), "dev", name])?;
        let beside = format!("{}/{PREFIX_LENGTH_6}", super::family::beside(address));
        self.machine().ip(&["address", "add", &beside, "dev", name, "nodad"])?;
        self.machine().ip(&["link", "set", name, "up"]).map(drop)
    }

    /// Makes another host a container behind this one's bridge, by its new `device`.
    pub fn contain(&self, bridge: &str, container: &Host, device: &str, address: Ipv4Addr) -> Result<()> {
        let port = format!("to-{}", container.name());
        super::host::cable((self.machine(), bridge, &port), container.machine(), device, address)
    }

    /// Forwards both families, and sends no redirects.
    pub fn forward(&self) -> Result<()> {
        self.set("ipv4/ip_forward", "1")?;
        self.set("ipv6/conf/all/forwarding", "1")?;
        for device in self.devices()? {
            self.set(&format!("ipv4/conf/{device}/send_redirects"), "0")?;
        }
        Ok(())
    }

    /// Takes packets whose way back leads elsewhere (RFC 3704's strict and loose filters are off).
    pub fn take_any_source(&self) -> Result<()> {
        for device in self.devices()? {
            self.set(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
        }
        Ok(())
    }

    /// All interfaces by name, and `all` and `default`, as the settings list them.
    fn devices(&self) -> Result<Vec<String>> {
        let listed = self.enter(|| fs::read_dir("/proc/sys/net/ipv4/conf"))?;
        let entries = listed.context(|| "cannot list the interfaces".to_owned())?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Sends what is for a segment (`78` is 10.78.0.0/16 and `fd00:78::/64`) to a neighbour.
    pub fn route(&self, segment: u8, via: Ipv4Addr) -> Result<()> {
        for family in Family::BOTH {
            let length = if family == Family::V4 { PREFIX_LENGTH } else { PREFIX_LENGTH_6 };
            let network = format!("{}/{length}", family.of(Ipv4Addr::new(10, segment, 0, 0)));
            self.route_to(&network, family.of(via))?;
        }
        Ok(())
    }

    /// Sends everything else to a neighbour, in both families.
    pub fn route_default(&self, via: Ipv4Addr) -> Result<()> {
        Family::BOTH.iter().try_for_each(|family| self.route_to("default", family.of(via)))
    }

    /// One route, replacing the one that is there.
    pub fn route_to(&self, network: &str, via: IpAddr) -> Result<()> {
        let flag = if via.is_ipv6() { "-6" } else { "-4" };
        self.machine().ip(&[flag, "route", "replace", network, "via", &via.to_string()]).map(drop)
    }

    /// Drops what is for a network in silence, so that spoofed addresses get no answer at all.
    pub fn swallow(&self, network: &str) -> Result<()> {
        let flag = if network.contains(':') { "-6" } else { "-4" };
        self.machine().ip(&[flag, "route", "replace", "blackhole", network]).map(drop)
    }

    /// Sets the largest packet that an interface takes. Both ends of a link want the same.
    pub fn set_mtu(&self, device: &str, mtu: u16) -> Result<()> {
        self.machine().ip(&["link", "set", device, "mtu", &mtu.to_string()]).map(drop)
    }

    /// The largest packet that the host believes to reach `to`, as its route and what routers have reported
    /// tell it: what `ip route get` says, or the interface's own where that says nothing.
    pub fn path_mtu(&self, to: IpAddr) -> Result<u16> {
        let route = self.machine().ip(&["route", "get", &to.to_string()])?;
        if let Some(mtu) = number_after(&route, "mtu") {
            return Ok(mtu);
        }
        let unreadable = || Error::Unreadable { what: "an MTU".to_owned(), text: route.clone() };
        let device = word_after(&route, "dev").ok_or_else(unreadable)?;
        let link = self.machine().ip(&["-o", "link", "show", "dev", device])?;
        number_after(&link, "mtu").ok_or_else(unreadable)
    }
}

fn word_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_whitespace().skip_while(|word| *word != name).nth(1)
}

fn number_after(text: &str, name: &str) -> Option<u16> {
    word_after(text, name)?.parse().ok()
}
