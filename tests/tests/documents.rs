//! README.md, ARCHITECTURE.md and the virtual machines' configuration, held against the code that they speak of.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use lb_common::Reason;
use lb_tests::lab::balancer::{Look as _, add_service_addresses, lb, program, write_configuration};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Host, Lab, wait_for};
use lb_userspace::api::Status;
use lb_userspace::cli::{Cli, Member};
use lb_userspace::config::{self, Config, SecretSource};

/// The balancer's own address in the documents.
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Passwords that are always there.
struct Password;

impl SecretSource for Password {
    fn file(&self, _: &Path) -> std::io::Result<String> {
        Ok("secret\n".to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        Some("secret".to_owned())
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a language, each as one text.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n") + "\n");
            }
        }
    }
    blocks
}

/// What stands between backquotes outside of blocks.
fn quoted(document: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            outside.push_str(line);
            outside.push('\n');
        }
    }
    outside
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Rows of the table whose header begins with these columns.
fn table(document: &str, header: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows = document.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The whole files that README's blocks make: one that names no interfaces goes on from those before it.
fn configurations() -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for block in blocks(&read("README.md"), "toml") {
        if block.starts_with("interfaces") {
            files.push(block);
        } else {
            let before = files.last().cloned().unwrap_or_default();
            files.push(before + "\n" + &block);
        }
    }
    files
}

fn parse(text: &str) -> Config {
    config::parse(text, "README.md", &Password).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Command lines that README shows, in blocks of a console and in running text, of the program `name`.
fn commands(name: &str) -> Vec<String> {
    let readme = read("README.md");
    let consoles = blocks(&readme, "console").join("").replace("\\\n", " ");
    let typed = consoles.lines().filter_map(|line| line.strip_prefix("# ").or(line.strip_prefix("$ ")));
    // A quoted option or key is no command line; one word after the name is.
    let mut lines: Vec<String> = typed.map(str::to_owned).chain(quoted(&readme)).collect();
    lines.retain(|line| line.starts_with(&format!("{name} ")));
    lines
}

/// What the virtual machines' script prints.
fn vagrant_configuration() -> String {
    let script = workspace().join("vagrant/configuration.sh");
    let arguments = ["eth0", "192.168.56.10", "192.168.56.11", "192.168.56.12"];
    let output = Command::new("bash").arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_configuration_of_the_readme_is_one() {
    let files: Vec<Config> = configurations().iter().map(|text| parse(text)).collect();
    let sizes: Vec<_> = files.iter().map(|file| (file.services.len(), file.clusters.len())).collect();
    assert_eq!(sizes, [(1, 0), (2, 1), (4, 1)]);
    assert_eq!(configurations()[0].lines().count(), 10, "one can take it in at a glance");
}

#[test]
fn every_command_line_of_the_readme_parses() {
    let lines = commands("lb");
    for wanted in
        ["run --confirm", "check", "status", "drain", "ready", "trace", "capture", "confirm", "detach"]
    {
        assert!(lines.iter().any(|line| line.starts_with(&format!("lb {wanted}"))), "{wanted}: {lines:?}");
    }
    for line in lines {
        // "…" stands for any command.
        let typed = line.replace('…', "status").replace("NAME", "edge");
        // A command that is named and not typed has no arguments.
        let named = |error: &clap::Error| error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
        if let Err(error) = Cli::try_parse_from(typed.split_whitespace())
            && !(typed.split_whitespace().count() == 2 && named(&error))
        {
            panic!("`{line}`: {error}");
        }
    }
}

#[test]
fn members_that_the_readme_drains_are_in_its_configuration() {
    let config = parse(configurations().last().unwrap());
    for line in commands("lb drain").iter().chain(&commands("lb ready")) {
        let member: Member = line.split_whitespace().nth(2).unwrap().parse().unwrap();
        let service = config.services.iter().find(|service| service.name == member.owner);
        let Some(config::Target::Backends { backends, .. }) = service.map(|service| &service.target) else {
            panic!("{line}: no such service with backends");
        };
        assert!(backends.iter().any(|backend| backend.name == member.name), "{line}");
    }
}

#[test]
fn the_table_of_counters_is_the_enum() {
    let row = |reason: &Reason| vec![format!("`{}`", reason.name()), reason.meaning().to_owned()];
    let wanted: Vec<Vec<String>> = Reason::ALL.iter().map(row).collect();
    assert_eq!(table(&read("README.md"), "| reason | meaning |"), wanted);
}

#[test]
fn the_table_of_exit_codes_is_what_the_program_says() {
    let help = Cli::command().render_help().to_string();
    let codes = help.lines().find_map(|line| line.strip_prefix("Exit codes: ")).expect("the help says them");
    let split = |code: &str| {
        let (number, meaning) = code.split_once(' ').unwrap();
        vec![number.to_owned(), meaning.to_owned()]
    };
    let wanted: Vec<Vec<String>> = codes.split(" · ").map(split).collect();
    assert_eq!(table(&read("README.md"), "| code | meaning |"), wanted);
}

#[test]
fn every_path_of_the_architecture_exists() {
    let roots = ["lb-common", "lb-ebpf", "lb-userspace", "tests", "xtask", "vagrant", ".ci"];
    let document = read("ARCHITECTURE.md");
    let paths: Vec<String> = quoted(&document)
        .into_iter()
        .filter(|text| !text.contains(' ') && roots.iter().any(|root| text.split('/').next() == Some(*root)))
        .collect();
    assert!(paths.len() > 30, "{paths:?}");
    for path in paths {
        assert!(workspace().join(&path).exists(), "{path}");
    }
}

#[test]
fn every_stage_of_the_data_path_and_every_part_of_the_agent_is_in_the_architecture() {
    let document = read("ARCHITECTURE.md");
    let mut modules = Vec::new();
    for folder in ["lb-ebpf/src", "lb-userspace/src"] {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !["lib.rs", "main.rs"].contains(&name.as_str()) {
                modules.push(format!("`{folder}/{name}"));
            }
        }
    }
    for module in modules {
        assert!(document.contains(&module), "{module}` is not mentioned");
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(document);
        let anchors: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
            .collect();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if let Some(anchor) = link.strip_prefix('#') {
                assert!(anchors.iter().any(|known| known == anchor), "{document}: {link}");
            } else if !link.starts_with("https://") {
                assert!(workspace().join(link).exists(), "{document}: {link}");
            }
        }
    }
}

#[test]
fn the_configuration_of_the_virtual_machines_is_one() {
    let config = parse(&vagrant_configuration());
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.services[0].listen.to_string(), "192.168.56.10:80/tcp");
    let config::Target::Backends { backends, .. } = &config.services[0].target else {
        panic!("{:?}", config.services[0]);
    };
    let addresses: Vec<String> = backends.iter().map(|backend| backend.address.to_string()).collect();
    assert_eq!(addresses, ["192.168.56.11:80", "192.168.56.12:80"]);
}

/// A host as README has it: one NIC and the balancer's own address.
fn host(lab: &Lab) -> Host {
    let host = lab.host("lb", BALANCER).unwrap();
    host.gro_on_peer().unwrap();
    host
}

fn check(host: &Host, text: &str) -> (Option<i32>, String) {
    let path = write_configuration(host, text).unwrap();
    let output = lb(host, &["check", "--config"]).arg(&path).output().unwrap();
    let said = (output.stdout + &output.stderr).replace(&path.display().to_string(), "/etc/lb/lb.toml");
    (output.status.code(), format!("{}\n", said.trim_end()))
}

#[test]
fn the_documents_configurations_pass_lb_check_once_their_addresses_are_there() {
    let name = "the_documents_configurations_pass_lb_check_once_their_addresses_are_there";
    if skip::cannot_run(name, &[Need::Lab]) {
        return;
    }
    let readme = read("README.md");
    for (text, shown) in [(configurations()[0].clone(), true), (vagrant_configuration(), false)] {
        let lab = Lab::new().unwrap();
        let host = host(&lab);
        let (code, said) = check(&host, &text);
        assert_eq!(code, Some(2), "{said}");
        assert!(!shown || readme.contains(&said), "README shows something else: {said}");
        add_service_addresses(&host, &text).unwrap();
        let (code, said) = check(&host, &text);
        assert_eq!(code, Some(0), "{said}");
        assert!(!shown || readme.contains(&said), "README shows something else: {said}");
    }
}

#[test]
fn the_capabilities_that_the_readme_names_are_enough() {
    if skip::require_root_and_bpf("the_capabilities_that_the_readme_names_are_enough") {
        return;
    }
    let readme = read("README.md");
    let named: Vec<String> = readme
        .split("--cap-add ")
        .skip(1)
        .map(|rest| rest.split(['`', ' ']).next().unwrap().to_lowercase())
        .collect();
    assert_eq!(named, ["bpf", "net_admin", "perfmon"]);

    let lab = Lab::new().unwrap();
    let host = host(&lab);
    let text = configurations()[0].clone();
    add_service_addresses(&host, &text).unwrap();
    let path = write_configuration(&host, &text).unwrap();
    let bounds = format!("-all,+{}", named.join(",+"));
    let agent = host.command("setpriv").arg("--bounding-set").arg(bounds).arg(program());
    let agent = agent.args(["run", "--config"]).arg(&path).spawn("lb").unwrap();
    let status = wait_for("the agent's status", Duration::from_secs(20), || {
        let output = lb(&host, &["status", "--json"]).output().ok()?;
        serde_json::from_str::<Status>(&output.stdout).ok()
    });
    let log = fs::read_to_string(host.directory().join("lb.log")).unwrap_or_default();
    let status = status.unwrap_or_else(|error| panic!("{error}: {log}"));
    assert_eq!(status.service("web").backends.len(), 2);
    assert_eq!(status.interfaces.len(), 1);
    let capabilities = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    // linux/capability.h: CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39.
    let wanted = format!("CapEff:\t{:016x}", 1_u64 << 12 | 1 << 38 | 1 << 39);
    assert!(capabilities.contains(&wanted), "{capabilities}");
    lb(&host, &["detach"]).run().unwrap();
}
