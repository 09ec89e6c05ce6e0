//! What bad input gets: one clear answer, exit code 2 or 1, and nothing changed.

use std::fs;
use std::time::Duration;

use lb_tests::lab::balancer::{add_service_addresses, lb, program, write_configuration};
use lb_tests::lab::command::Output;
use lb_tests::lab::load::Load;
use lb_tests::lab::setup::WEB;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Host, Lab, Setup, Site};

/// Runs `lb run` with a configuration that must be refused.
fn refused(host: &Host, text: &str, more: &[&str]) -> Output {
    let path = write_configuration(host, text).unwrap();
    let path = path.to_str().unwrap();
    let arguments = [&["run", "--config", path][..], more].concat();
    // An agent that is not refused would run for ever.
    let output = lb(host, &arguments).limit(Duration::from_secs(10)).output().unwrap();
    assert_eq!(output.stdout, "", "{text}");
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    output
}

/// The host has neither a program on its interface nor files of `lb`.
fn assert_untouched(host: &Host) {
    let script = "ip -o link show | grep -o 'xdp[a-z]*'; find /sys/fs/bpf -mindepth 1 ! -name '*.debug'; \
                  find /run -name '*.sock'; true";
    assert_eq!(host.run(&["sh", "-c", script]).unwrap(), "");
}

/// Lines of errors that name a place: `FILE:LINE:COLUMN: …`.
fn places(host: &Host, output: &Output) -> Vec<(u32, u32)> {
    let file = format!("{}:", host.directory().join("lb.toml").display());
    let place = |line: &str| {
        let mut numbers = line.strip_prefix(&file)?.splitn(3, ':');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    output.stderr.lines().filter_map(place).collect()
}

#[test]
fn a_wrong_file_is_refused_with_the_places_of_its_errors() {
    const NAME: &str = "a_wrong_file_is_refused_with_the_places_of_its_errors";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    let good = Setup::new().web(2).text();
    add_service_addresses(&host, &good).unwrap();
    let line_of = |text: &str, what: &str| {
        text.lines().position(|line| line.contains(what)).map(|index| index as u32 + 1).unwrap()
    };

    // The first syntax error only: what follows it may be nonsense.
    let text = good.replace("name = \"web\"", "name = web\"").replace("[[service]]", "[[service]");
    let output = refused(&host, &text, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let found = places(&host, &output);
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [line_of(&text, "[[service]")]);

    // All errors of meaning at once, in the order of the file.
    let text = good
        .replace("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\ninterface = \"eth0\"")
        .replace("/tcp", "/tpc")
        .replace("10.77.0.22:80\", weight = 100", "10.77.0.22:80\", weight = 5000");
    let output = refused(&host, &text, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let wanted = ["interface = ", "/tpc", "5000"].map(|what| line_of(&text, what));
    assert_eq!(places(&host, &output).iter().map(|(line, _)| *line).collect::<Vec<_>>(), wanted);
    for word in ["interfaces", "/tcp", "1000"] {
        assert!(output.stderr.contains(word), "what would be right, {word}: {}", output.stderr);
    }
    // `lb check` says the same.
    let path = write_configuration(&host, &text).unwrap();
    let check = lb(&host, &["check", "--config", path.to_str().unwrap()]).output().unwrap();
    assert_eq!((check.status.code(), check.stderr), (Some(2), output.stderr));

    // A file that is not there.
    let output = lb(&host, &["run", "--config", "/nowhere/lb.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("/nowhere/lb.toml"), "{output:?}");
    assert_untouched(&host);
}

#[test]
fn a_host_that_does_not_fit_is_refused_with_what_to_do() {
    const NAME: &str = "a_host_that_does_not_fit_is_refused_with_what_to_do";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("setpriv")]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    let good = Setup::new().web(2).text();

    // The service's address is on no interface: the line to be typed is there, and it is right.
    let output = refused(&host, &good, &[]);
    assert_ne!(output.status.code(), Some(0));
    let wanted = format!("ip addr add {}/32 dev eth0", WEB.ip());
    assert!(output.stderr.contains(&wanted), "{}", output.stderr);
    host.run(&wanted.split(' ').collect::<Vec<_>>()).unwrap();

    // An interface that is not there.
    let output = refused(&host, &good.replace("eth0", "eth7"), &[]);
    assert_ne!(output.status.code(), Some(0));
    assert!(output.stderr.contains("eth7"), "{}", output.stderr);
    assert!(output.stderr.contains("eth0"), "which there are: {}", output.stderr);

    // Nobody's rights.
    let path = write_configuration(&host, &good).unwrap();
    // The build directory may be closed to others.
    let copy = host.directory().join("lb");
    fs::copy(program(), &copy).unwrap();
    let output = host
        .command("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(&copy)
        .args(["run", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("root"), "{}", output.stderr);
    assert_untouched(&host);
}

#[test]
fn another_xdp_program_and_another_agent_are_left_alone() {
    const NAME: &str = "another_xdp_program_and_another_agent_are_left_alone";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let text = Setup::new().web(2).text();
    let site = Site::start(2, 0, &text, &[]).unwrap();
    let host = site.balancer.host();
    let bystanders = site.watch().unwrap();
    let before = site.balancer.status().unwrap();
    let load = Load { per_second: Some(200.0), ..Load::new(WEB, "/static") }.start(&site.client);

    // The same instance twice.
    let output = refused(host, &text, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("another lb agent") && output.stderr.contains("--instance"), "{output:?}");
    // To another instance ours is a foreign program.
    let output = refused(host, &text, &["--instance", "other"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("eth0") && output.stderr.contains("XDP"), "{output:?}");
    // A wrong file does not reach the agent either, and neither do unknown names.
    let output = refused(host, "interfaces = []", &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    for (arguments, code) in [
        (&["drain", "web/web9"][..], 2),
        (&["drain", "shop/web1"], 2),
        (&["drain", "web1"], 2),
        (&["ready", "web/web9"], 2),
        (&["drain", "web/web1", "--deadline", "soon"], 2),
        (&["frobnicate"], 2),
        (&["confirm"], 1),
    ] {
        let output = site.balancer.run_lb(arguments).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }

    let report = load.stop().unwrap();
    assert!(report.succeeded() > 0 && report.failures.is_empty(), "{report:?}");
    let after = site.balancer.status().unwrap();
    assert_eq!(after.interfaces, before.interfaces);
    assert_eq!(after.agent.pid, before.agent.pid);
    let states = |status: &lb_tests::lab::balancer::Status| {
        status.services[0].backends.iter().map(|backend| backend.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&after), states(&before));
    assert!(!host.root().join("sys/fs/bpf/other").exists(), "what a refused instance left");
    bystanders.assert_undisturbed();
}
