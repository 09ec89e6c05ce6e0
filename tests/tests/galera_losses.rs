//! Real nodes that are lost and come back: cut off from their group, from everybody, killed, frozen. Exactly what the
//! balancer decides, and that the writer's role moves only with the writer.

use std::time::Duration;

use lb_tests::Site;
use lb_tests::lab::balancer::Status;
use lb_tests::lab::galera::GaleraNode;
use lb_tests::lab::galera::journal::{Journal, roles};
use lb_tests::lab::mysql::{Login, Session};
use lb_tests::lab::setup::DATABASE;
use lb_tests::lab::skip::{self, Need};

const LIMIT: Duration = Duration::from_secs(30);
const RHYTHM: &str = "interval = \"200ms\", timeout = \"200ms\"";

fn node<'a>(site: &'a Site, name: &str) -> &'a GaleraNode {
    site.galera.as_ref().unwrap().node(name).unwrap()
}

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

/// What a node that has lost its group says first, and may say on the way back.
fn is_lost(line: &str, node: &str) -> bool {
    let reasons = ["wsrep_cluster_status is not Primary", "wsrep_ready is OFF", "wsrep_connected is OFF"];
    reasons.iter().any(|reason| line == format!("{node}: Writer → Out: {reason}"))
}

/// All nodes are as before, and so is the writer.
fn whole(site: &Site, name: &str, epoch: u64) {
    let whole = |status: &Status| status.clusters[0].nodes.iter().all(|node| node.reason == "synced");
    let status = site.balancer.wait(whole, "all to be synced", LIMIT).unwrap();
    assert_eq!(writer(&status), (Some(name), epoch));
    assert_eq!(status.alarms, Vec::<String>::new());
    site.galera.as_ref().unwrap().wait_size(3, LIMIT).unwrap();
    let mut session = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(session.node().unwrap(), name);
}

#[test]
fn nodes_that_are_cut_off_or_killed_have_exactly_these_consequences() {
    const NAME: &str = "nodes_that_are_cut_off_or_killed_have_exactly_these_consequences";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera, Need::Program("nft")]) {
        return;
    }
    let site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    whole(&site, "db1", 1);
    a_reader_loses_its_group(&site);
    a_reader_loses_everybody(&site);
    a_reader_is_killed(&site);
    the_writer_loses_its_group(&site);
}

/// Its port for clients stays open, so only what it says gives it away.
fn a_reader_loses_its_group(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    node(site, "db3").cut_from_group(true).unwrap();
    let news = journal.until(&["db3: Writer → Out"]).unwrap();
    assert!(news.len() == 1 && is_lost(&news[0], "db3"), "{news:?}");
    node(site, "db3").cut_from_group(false).unwrap();
    let news = journal.until(&["db3: Out → Writer: synced"]).unwrap();
    assert!(news.iter().all(|line| line.starts_with("db3: ")), "{news:?}");
    whole(site, "db1", 1);
}

fn a_reader_loses_everybody(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    node(site, "db3").host().link_down().unwrap();
    journal.expect(&["db3: Writer → Out: no answer to 3 probes in a row"]);
    // The group must have noticed too, or db3 is lost again after it is back.
    node(site, "db1").wait_size(2, LIMIT).unwrap();
    node(site, "db3").host().link_up().unwrap();
    let news = journal.until(&["db3: Out → Writer: synced"]).unwrap();
    assert!(news.iter().all(|line| line.starts_with("db3: ")), "{news:?}");
    whole(site, "db1", 1);
}

fn a_reader_is_killed(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    node(site, "db2").kill9().unwrap();
    journal.expect(&["db2: Writer → Out: connection refused"]);
    node(site, "db2").start_again().unwrap();
    // One of the others feeds it meanwhile; if that is the writer, it keeps the role.
    whole(site, "db1", 1);
    let news = journal.until(&[""]).unwrap();
    let fed = |line: &&String| {
        line.ends_with(": Writer → NoNew: donor") || line.ends_with(": NoNew → Writer: synced")
    };
    let others: Vec<&String> = news.iter().filter(|line| !line.starts_with("db2: ")).collect();
    assert!(others.iter().all(fed) && others.len() <= 2, "{news:?}");
    assert!(
        news.iter().any(|line| line.starts_with("db2: ") && line.ends_with("→ Writer: synced")),
        "{news:?}"
    );
}

fn the_writer_loses_its_group(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    node(site, "db1").cut_from_group(true).unwrap();
    // Which of the two has said so first that it stands in the new group, is the writer.
    let candidates = ["db2", "db3"];
    let elected = |name| format!("writer {name}, epoch 2, elected after a failure: db1: wsrep_");
    let either = candidates.map(elected);
    let news = journal.until(&either.each_ref().map(String::as_str)).unwrap();
    assert!(news.len() == 2 && is_lost(&news[0], "db1"), "{news:?}");
    let writer = candidates.into_iter().find(|name| news[1].starts_with(&elected(name))).unwrap();
    node(site, "db1").cut_from_group(false).unwrap();
    let news = journal.until(&["db1: Out → Writer: synced"]).unwrap();
    assert!(news.iter().all(|line| line.starts_with("db1: ")), "{news:?}");
    whole(site, writer, 2);
}

#[test]
fn a_frozen_writer_is_replaced_and_its_outdated_answers_fool_nobody() {
    const NAME: &str = "a_frozen_writer_is_replaced_and_its_outdated_answers_fool_nobody";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    whole(&site, "db1", 1);
    let mut journal = Journal::begin(&site.balancer);
    node(&site, "db1").pause().unwrap();
    journal.expect(&[
        "db1: Writer → Out: no answer to 3 probes in a row",
        "writer db2, epoch 2, elected after a failure: db1: no answer to 3 probes in a row",
    ]);
    // The others must have noticed, or its view is not outdated.
    node(&site, "db2").wait_size(2, LIMIT).unwrap();
    let newer = |status: &Status| status.clusters[0].nodes[1].conf_id > status.clusters[0].nodes[0].conf_id;
    site.balancer.wait(newer, "the newer view", LIMIT).unwrap();
    node(&site, "db1").resume().unwrap();
    let news = journal.until(&["db1: NoNew → Writer: synced", "db1: Out → Writer: synced"]).unwrap();
    assert_eq!(news[0], "db1: Out → NoNew: answers with an outdated view of the cluster", "{news:?}");
    assert!(news.iter().all(|line| line.starts_with("db1: ")), "{news:?}");
    whole(&site, "db2", 2);
}

#[test]
fn a_cluster_without_a_quorum_has_no_writer_and_is_told_how_to_get_one() {
    const NAME: &str = "a_cluster_without_a_quorum_has_no_writer_and_is_told_how_to_get_one";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    whole(&site, "db1", 1);
    node(&site, "db2").kill9().unwrap();
    node(&site, "db3").kill9().unwrap();
    let nobody = |status: &Status| {
        status.clusters[0].writer.is_none()
            && status.alarms.iter().any(|alarm| alarm.contains("db1 has the highest wsrep_last_committed"))
    };
    let status = site.balancer.wait(nobody, "nobody to be Primary", LIMIT).unwrap();
    let alarm = status.alarms.iter().find(|alarm| alarm.contains("no node is Primary")).unwrap();
    assert!(alarm.contains("SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'"), "{alarm}");
    assert!(alarm.contains("Do not type it while"), "{alarm}");
    let said = site.balancer.run_lb(&["status"]).unwrap().stdout;
    // The other services may be down by then too, and are told in the order of the configuration.
    assert!(said.lines().next().unwrap().contains("db-write: no writer since "), "{said}");
    // What it says works, and nothing else was needed.
    node(&site, "db1").sql("SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'").unwrap();
    let back = |status: &Status| writer(status) == (Some("db1"), 2);
    site.balancer.wait(back, "a writer", LIMIT).unwrap();
}
