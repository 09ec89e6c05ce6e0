//! The top of the file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::address::any_host;
use super::cross::{Seen, claim};
use super::model::{Cluster, Config, Service, XdpMode};
use super::pattern::Pattern;
use super::report::Report;
use super::secret::SecretSource;
use super::table::{Marked, Section};
use super::value::{Fault, absence, group, interface, source_ports};
use super::{cluster, service};

pub(super) const KEYS: &[&str] = &[
    "interfaces",
    "xdp-mode",
    "max-flows",
    "source-ports",
    "sources",
    "agent-lost-after",
    "api",
    "service",
    "cluster",
];
/// What every file may have; the rest of [`KEYS`] belongs into the main one.
const SHARED_KEYS: [&str; 2] = ["service", "cluster"];
pub(super) const API_KEYS: &[&str] = &["group"];
const INTERFACES_EXAMPLE: &str = r#"["eth0"]"#;
const SOURCES_EXAMPLE: &str = r#"["10.0.0.2", "10.0.0.3"]"#;
const AGENT_LOST_AFTER: Duration = Duration::from_secs(30);
const API_EXAMPLE: &str = r#"{ group = "lb" }"#;
const XDP_MODES: [(&str, XdpMode); 3] =
    [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];

/// A file: what its errors are told to, and what it says.
pub(super) type Document<'a> = (Report<'a>, &'a DeTable<'a>);

/// Reads the main file and those beside it. The result is only worth something if nothing has been reported.
pub(super) fn read<'a>(
    main: &'a Document<'a>,
    beside: &'a [Document<'a>],
    secrets: &dyn SecretSource,
) -> Config {
    let (report, document) = main;
    let section = Section::new(report, "a configuration", 0, document, KEYS);
    let (interfaces, patterns) = interfaces(&section);
    let xdp_mode = section.choice("xdp-mode", &XDP_MODES).unwrap_or_default();
    let max_flows = section.integer("max-flows", 1_024..=16_777_216);
    let source_ports = section.parsed("source-ports", r#""1024-65535""#, source_ports);
    let sources = sources(&section);
    let agent_lost_after = section.parsed("agent-lost-after", r#""30s""#, absence);
    let api_group = api_group(&section);
    let mut sections = vec![section];
    sections.extend(beside.iter().map(|(report, document)| fragment(report, document)));
    let mut seen = Seen::default();
    // A service of any file may name a cluster of any other.
    let clusters = sections.iter().flat_map(|section| clusters(section, secrets, &mut seen)).collect();
    let services = sections.iter().flat_map(|section| services(section, secrets, &mut seen)).collect();
    seen.check_servers(report);
    Config {
        interfaces,
        patterns,
        xdp_mode,
        max_flows,
        source_ports: source_ports.map(|ports| ports.value),
        sources,
        agent_lost_after: agent_lost_after.map_or(AGENT_LOST_AFTER, |after| after.value),
        api_group,
        services,
        clusters,
    }
}

/// A file beside the main one: services and clusters only, so that nobody has to look for the rest in many places.
fn fragment<'a>(report: &'a Report<'a>, document: &'a DeTable<'a>) -> Section<'a> {
    let what = "a file of conf.d";
    let section = Section::with_foreign(report, what, report.at(0), document, &SHARED_KEYS, KEYS);
    let main = report.files().main();
    for key in KEYS.iter().filter(|key| !SHARED_KEYS.contains(key)) {
        section.refuse(key, &format!("{key}: only the main file says it"), &format!("write it into {main}"));
    }
    section
}

fn api_group(section: &Section<'_>) -> Option<String> {
    let table = section.table("api", API_EXAMPLE)?;
    let section = Section::new(section.report(), "the api", table.at, table.value, API_KEYS);
    section.parsed("group", r#""lb""#, group).map(|group| group.value)
}

/// Names, and patterns of names.
fn interfaces(section: &Section<'_>) -> (Vec<String>, Vec<Pattern>) {
    section.require("interfaces", &format!("interfaces = {INTERFACES_EXAMPLE}"));
    if section.is_empty_list("interfaces") {
        let wrong = "interfaces: at least one is needed";
        section.add("interfaces", Fault::new(wrong, format!("write interfaces = {INTERFACES_EXAMPLE}")));
    }
    let mut taken = BTreeMap::new();
    let (mut names, mut patterns) = (Vec::new(), Vec::new());
    for Marked { value, at } in section.texts("interfaces", INTERFACES_EXAMPLE) {
        let read = if value.contains('*') {
            Pattern::parse(value).map(|pattern| patterns.push(pattern))
        } else {
            interface(value).map(|name| names.push(name))
        };
        match read {
            Ok(()) => {
                let name = Marked { value: value.to_owned(), at };
                claim(section.report(), &mut taken, &name, "interface", "list it once");
            }
            Err(Fault { wrong, right }) => {
                section.report().add(at, Fault::new(format!("interfaces: {wrong}"), right));
            }
        }
    }
    (names, patterns)
}

fn sources(section: &Section<'_>) -> Vec<IpAddr> {
    if section.is_empty_list("sources") {
        let wrong = "sources: at least one is needed";
        section.add("sources", Fault::new(wrong, "name addresses of this host, or leave `sources` out"));
    }
    let given = section.texts("sources", SOURCES_EXAMPLE);
    for version in [4, 6] {
        // Number 0 is nobody's.
        let most = lb_common::MAX_SOURCES as usize - 1;
        let of_family = given.iter().filter(|text| text.value.contains(':') == (version == 6)).count();
        if of_family > most {
            let wrong = format!("sources: more than {most} of IPv{version}");
            section.add("sources", Fault::new(wrong, format!("name at most {most} addresses")));
        }
    }
    let mut taken = BTreeMap::new();
    let mut sources = Vec::new();
    for Marked { value, at } in given {
        match any_host(value) {
            Ok(value) => {
                let source = Marked { value, at };
                claim(section.report(), &mut taken, &source, "source", "list it once");
                sources.push(source.value);
            }
            Err(Fault { wrong, right }) => {
                section.report().add(at, Fault::new(format!("sources: {wrong}"), right));
            }
        }
    }
    sources
}

fn clusters(section: &Section<'_>, secrets: &dyn SecretSource, seen: &mut Seen) -> Vec<Cluster> {
    let tables = section.tables("cluster", "[[cluster]]");
    tables.into_iter().filter_map(|table| cluster::read(section.report(), table, secrets, seen)).collect()
}

fn services(section: &Section<'_>, secrets: &dyn SecretSource, seen: &mut Seen) -> Vec<Service> {
    let mut services = Vec::new();
    for table in section.tables("service", "[[service]]") {
        seen.count_service(section.report(), table.at);
        services.extend(service::read(section.report(), table, secrets, seen));
    }
    services
}
