//! Backends that die: which requests may fail, and how many.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::lab::balancer::{BackendState, Look, Status};
use lb_tests::lab::load::{Load, LoadReport, Running};
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(15);
const THREADS: usize = 8;

fn answered(load: &Running, more: u64) -> LoadReport {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || {
        let report = load.so_far();
        (report.succeeded() >= before + more).then_some(report)
    })
    .unwrap()
}

fn load(path: &str) -> Load {
    Load { threads: THREADS, per_second: Some(400.0), ..Load::new(WEB, path) }
}

/// Whether the backend takes no new connections, as far as the agent has told the kernel.
fn is_out(status: &Status, name: &str) -> bool {
    status.backend(name).weight_effective == 0.0
}

#[test]
fn after_the_first_refused_probe_a_dead_node_gets_no_new_connection() {
    const NAME: &str = "after_the_first_refused_probe_a_dead_node_gets_no_new_connection";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = Site::start(2, 0, &Setup::new().web(2).text(), &[]).unwrap();
    let bystanders = site.watch().unwrap();
    let fresh = site.balancer.status().unwrap();
    let load = load("/work.php").start(&site.client);
    answered(&load, 200);
    assert_eq!(load.so_far().failures, BTreeMap::new());

    let before = site.balancer.status().unwrap();
    site.webs[0].kill_all().unwrap();
    let out = |status: &Status| is_out(status, "web/web1");
    site.balancer.wait(out, "web1 to be out", LIMIT).unwrap();
    // Asked again, because a SYN may have been under way while the first answer was made.
    let frozen = site.balancer.status().unwrap().backend("web/web1").opened;
    // Requests that were under way to the dead node have failed by now: it answers with RST.
    let so_far = answered(&load, 20);
    let later = answered(&load, 600);
    assert_eq!(later.failures, so_far.failures, "no request fails any more");
    let after = site.balancer.status().unwrap();
    assert_eq!(after.backend("web/web1").opened, frozen);
    // Down in the eyes of the agent, too; that was confirmed by a second refusal.
    let down = |status: &Status| status.backend("web/web1").state == BackendState::Down;
    let status = site.balancer.wait(down, "web1 to be down", LIMIT).unwrap();
    assert!(status.backend("web/web1").reason.contains("refused"), "{status:?}");

    site.webs[0].restart().unwrap();
    let back = |status: &Status| status.backend("web/web1").opened > frozen;
    site.balancer.wait(back, "web1 to be back", LIMIT).unwrap();
    answered(&load, 50);
    let report = load.stop().unwrap();
    assert_eq!(report.failures, later.failures);

    // Each connection to web1 is an answer of web1 or a failure, and only those that were open when it
    // died or were opened before the probe can have failed.
    let end = site.balancer.status().unwrap();
    let opened = |status: &Status, name| status.backend(name).opened;
    assert_eq!(opened(&end, "web/web1") - opened(&fresh, "web/web1"), {
        report.bodies["web1"] + report.failed()
    });
    assert_eq!(opened(&end, "web/web2") - opened(&fresh, "web/web2"), report.bodies["web2"]);
    let exposed = before.backend("web/web1").live + frozen - opened(&before, "web/web1");
    assert!(report.failed() <= exposed, "{:?} of {exposed}", report.failures);
    bystanders.assert_undisturbed();
}

#[test]
fn a_node_whose_php_died_behind_a_living_nginx_is_out_after_the_third_failed_probe() {
    const NAME: &str = "a_node_whose_php_died_behind_a_living_nginx_is_out_after_the_third_failed_probe";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    // Round robin, because least-load would leave a node in its slow start alone as long as the other is idle.
    let lines = "algorithm = \"round-robin\"\ncheck = { type = \"http\", path = \"/ping\" }";
    let service = Service { lines, ..Service::web(&[100, 100]) };
    let mut site = Site::start(2, 0, &Setup::new().service(&service).text(), &[]).unwrap();
    // nginx serves this page without PHP, so no request fails, and the balancer must judge by its probes alone.
    let load = load("/static").start(&site.client);
    answered(&load, 100);
    // nginx logs each request that found no PHP; only the balancer asks for this page.
    let failed_probes = |site: &Site| site.webs[0].log().matches("request: \"GET /ping").count();
    assert_eq!(failed_probes(&site), 0);
    site.webs[0].kill_fpm().unwrap();
    let out = |status: &Status| is_out(status, "web/web1");
    let status = site.balancer.wait(out, "web1 to be out", LIMIT).unwrap();
    assert_eq!(failed_probes(&site), 3);
    assert_eq!(status.backend("web/web1").state, BackendState::Down);
    assert!(status.backend("web/web1").reason.contains("502"), "{status:?}");
    let frozen = site.balancer.status().unwrap().backend("web/web1").opened;
    answered(&load, 400);
    assert_eq!(site.balancer.status().unwrap().backend("web/web1").opened, frozen);

    site.webs[0].restart().unwrap();
    let back = |status: &Status| status.backend("web/web1").opened > frozen;
    site.balancer.wait(back, "web1 to be back", LIMIT).unwrap();
    assert_eq!(load.stop().unwrap().failures, BTreeMap::new());
}
