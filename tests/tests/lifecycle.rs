//! What `lb` leaves on a host, and how it goes away.

use std::time::Duration;

use lb_tests::lab::load::Load;
use lb_tests::lab::setup::WEB;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Host, Lab, Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

/// All that an instance has on the host: the interface's programs, the pinned files, the socket.
fn traces(host: &Host) -> Vec<String> {
    // The kernel itself puts two files into every BPF file system (kernel/bpf/preload).
    let script = "ip -o link show | grep -o 'xdp[a-z]*'; find /sys/fs/bpf -mindepth 1 ! -name '*.debug'; \
                  ls /run/lb/lb.sock 2>/dev/null; ip neigh show nud permanent; \
                  ip neigh show | grep -w managed; true";
    host.run(&["sh", "-c", script]).unwrap().lines().map(str::to_owned).collect()
}

/// Whether the kernel still has a program of this id.
fn program_exists(host: &Host, id: u32) -> bool {
    host.command("bpftool").args(["prog", "show", "id", &id.to_string()]).run().is_ok()
}

/// The ids of the maps that a program uses, as the kernel tells.
fn maps_of(host: &Host, id: u32) -> Vec<u32> {
    let text = host.run(&["bpftool", "--json", "prog", "show", "id", &id.to_string()]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["map_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn map_exists(host: &Host, id: u32) -> bool {
    host.command("bpftool").args(["map", "show", "id", &id.to_string()]).run().is_ok()
}

#[test]
fn detach_leaves_no_program_no_map_and_no_pin_with_and_without_an_agent() {
    const NAME: &str = "detach_leaves_no_program_no_map_and_no_pin_with_and_without_an_agent";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Program("bpftool")]) {
        return;
    }
    for (agent_runs, mode) in [(true, "native"), (false, "native"), (true, "generic")] {
        let mut site = Site::start(1, 0, &Setup::new().web(1).text(), &["--xdp-mode", mode]).unwrap();
        let bystanders = site.watch().unwrap();
        let host = site.balancer.host().clone();
        let before = site.balancer.status().unwrap();
        let program = before.interfaces[0].program_id;
        let maps = maps_of(&host, program);
        assert!(!maps.is_empty() && maps.iter().all(|map| map_exists(&host, *map)));
        if !agent_runs {
            site.balancer.kill().unwrap();
        }
        let output = site.balancer.run_lb(&["detach"]).unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        if agent_runs {
            assert_eq!(site.balancer.wait_exit(LIMIT).unwrap().code(), Some(0));
        }
        // The kernel frees programs and maps a moment after their last holder has gone.
        wait_for("the end of program and maps", LIMIT, || {
            let gone = !program_exists(&host, program) && !maps.iter().any(|map| map_exists(&host, *map));
            gone.then_some(())
        })
        .unwrap();
        // The socket of a killed agent stays: it is no part of the data path, and the next one replaces it.
        let leftover: Vec<String> =
            traces(&host).into_iter().filter(|line| agent_runs || !line.ends_with("lb.sock")).collect();
        assert_eq!(leftover, Vec::<String>::new(), "agent runs: {agent_runs}, {mode}");
        // The address is an ordinary one of the host again, on which nobody listens.
        let load = Load { requests: Some(1), ..Load::new(WEB, "/static") };
        assert_eq!(load.run(&site.client).unwrap().failures["refused"], 1);
        bystanders.assert_undisturbed();
        // Nothing is there any more, and that is no error.
        assert_eq!(site.balancer.run_lb(&["detach"]).unwrap().status.code(), Some(0));
    }
}

#[test]
fn an_agent_that_nobody_confirms_detaches_by_itself() {
    const NAME: &str = "an_agent_that_nobody_confirms_detaches_by_itself";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = Site::start(1, 0, &Setup::new().web(1).text(), &["--confirm", "3s"]).unwrap();
    let deadline = site.balancer.status().unwrap().agent.confirm_deadline;
    assert!(deadline.is_some());
    let ended = site.balancer.wait_exit(LIMIT).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", site.balancer.log());
    assert_eq!(traces(site.balancer.host()), Vec::<String>::new());
}

#[test]
fn a_confirmed_agent_stays() {
    const NAME: &str = "a_confirmed_agent_stays";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(1, 0, &Setup::new().web(1).text(), &["--confirm", "3s"]).unwrap();
    let unconfirmed = site.balancer.status().unwrap();
    let deadline = unconfirmed.agent.confirm_deadline.unwrap();
    assert_eq!(site.balancer.run_lb(&["confirm"]).unwrap().status.code(), Some(0));
    let passed = deadline.checked_add(Duration::from_secs(1)).unwrap();
    let after =
        site.balancer.wait(|status| status.agent.now > passed, "the deadline to have passed", LIMIT).unwrap();
    assert_eq!(after.agent.confirm_deadline, None);
    assert_eq!(after.agent.pid, unconfirmed.agent.pid);
    assert_eq!(after.interfaces, unconfirmed.interfaces);
    // There is nothing left to be confirmed.
    assert_eq!(site.balancer.run_lb(&["confirm"]).unwrap().status.code(), Some(1));
}

#[test]
fn the_status_that_is_printed_is_the_one_on_the_socket() {
    const NAME: &str = "the_status_that_is_printed_is_the_one_on_the_socket";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &Setup::new().web(2).text(), &[]).unwrap();
    let printed = site.balancer.run_lb(&["status", "--json"]).unwrap();
    let printed: lb_tests::lab::balancer::Status = serde_json::from_str(&printed.stdout).unwrap();
    let asked = site.balancer.status().unwrap();
    assert_eq!(printed.agent.pid, asked.agent.pid);
    assert_eq!(printed.interfaces, asked.interfaces);
    let names = |status: &lb_tests::lab::balancer::Status| {
        let backends = status.services[0].backends.iter();
        backends.map(|backend| (backend.name.clone(), backend.address.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&printed), names(&asked));
    let text = site.balancer.run_lb(&["status"]).unwrap().stdout;
    for word in ["eth0", "web1", "web2", "10.77.0.21:80", "up"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    // Without an agent there is nobody to ask.
    let lab = Lab::new().unwrap();
    let other = lab.balancer_host().unwrap();
    for arguments in [&["status"][..], &["drain", "web/web1"], &["ready", "web/web1"], &["confirm"]] {
        let output = lb_tests::lab::balancer::lb(&other, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("lb run"), "{output:?}");
    }
}
