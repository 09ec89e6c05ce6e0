//! The sentence and the table, against exact texts.

use jiff::tz::TimeZone;

use super::*;
use crate::api::{explain::explained_in, render::render_in, sentence::sentence_in};

#[test]
#[expect(clippy::too_many_lines, reason = "one table of all that is said")]
fn the_sentence_says_what_matters_first() {
    let many = |trouble: usize| {
        let troubled = (0..trouble).map(|_| web([UP, REFUSED]));
        status(troubled.chain((0..6).map(|_| web([UP, UP]))).collect(), vec![])
    };
    let unconfirmed = {
        let mut unconfirmed = status(vec![web([UP, UP])], vec![]);
        unconfirmed.agent.confirm_deadline = Some(at("02:16:00"));
        unconfirmed
    };
    let with = |mut status: Status, change: fn(&mut Status)| {
        change(&mut status);
        status
    };
    let fine = || status(vec![web([UP, UP])], vec![]);
    let (ready, out) = (NodeReadiness::Ready, NodeReadiness::NotReady);
    let nodes = |db2: NodeReadiness, why: &str| {
        let nodes =
            vec![node("db1", "10.0.1.1:3306", ready, "synced"), node("db2", "10.0.1.2:3306", db2, why)];
        status(vec![db_write()], vec![cluster(Some("db1"), nodes)])
    };
    let table = [
        (
            status(vec![web([UP, UP]), db_write()], vec![cluster(Some("db1"), vec![])]),
            "web: all 2 backends up; db-write: writer db1",
        ),
        (nodes(ready, "synced"), "db-write: writer db1"),
        (nodes(out, "not Primary"), "db-write: writer db1: db2 not Primary; type `lb explain db`"),
        (nodes(out, ""), "db-write: writer db1: db2 not-ready; type `lb explain db`"),
        (
            with(nodes(out, "maintenance"), |status| {
                let db2 = BackendStatus {
                    name: "db2".to_owned(),
                    live: 2,
                    ..status.services[0].backends[0].clone()
                };
                status.services[0].backends.push(BackendStatus { state: BackendState::Draining, ..db2 });
            }),
            "db-write: writer db1: db2 draining, 2 connections left",
        ),
        (
            status(vec![web([UP, UP]), db_write()], vec![broken_cluster()]),
            "db-write: no writer since 02:13:07: db1 refused, db2 and db3 not Primary; \
             web: all 2 backends up; type `lb explain db`",
        ),
        // What serves nobody comes before what serves with less.
        (
            status(vec![web([UP, REFUSED]), db_write()], vec![broken_cluster()]),
            "db-write: no writer since 02:13:07: db1 refused, db2 and db3 not Primary; \
             web: 1 of 2 backends up: web2 refused; type `lb explain db`",
        ),
        (
            status(vec![web([UP, REFUSED])], vec![]),
            "web: 1 of 2 backends up: web2 refused; type `lb explain web`",
        ),
        (
            status(vec![web([REFUSED, REFUSED])], vec![]),
            "web: no backend up since 02:13:00: web1 and web2 refused; type `lb explain web`",
        ),
        (
            status(vec![web([DRAINING, DRAINING])], vec![]),
            "web: no backend up since 02:13:00: web1 and web2 draining, no connection left; type `lb explain web`",
        ),
        (
            status(vec![web([UP, (BackendState::Unknown, "not probed yet")])], vec![]),
            "web: 1 of 2 backends up: web2 unknown; type `lb explain web`",
        ),
        (
            status(vec![web([UP, DRAINING])], vec![]),
            "web: 1 of 2 backends up: web2 draining, no connection left",
        ),
        (
            with(status(vec![web([UP, DRAINING])], vec![]), |status| status.services[0].backends[1].live = 1),
            "web: 1 of 2 backends up: web2 draining, 1 connection left",
        ),
        (status(vec![], vec![]), "no service is configured"),
        (
            status(vec![service("web", vec![])], vec![]),
            "web: no backend is configured; type `lb explain web`",
        ),
        (
            with(fine(), |status| status.alarms = vec!["the flow table is full".to_owned()]),
            "1 alarm; web: all 2 backends up; type `lb events`",
        ),
        (
            with(status(vec![web([UP, REFUSED]), web([REFUSED, REFUSED])], vec![]), |status| {
                status.alarms = vec![String::new(), String::new()];
            }),
            "web: no backend up since 02:13:00: web1 and web2 refused; 2 alarms; \
             web: 1 of 2 backends up: web2 refused; type `lb explain web`",
        ),
        (
            with(fine(), |status| {
                status.agent.unloaded = Some("have changed since they were loaded".to_owned());
            }),
            "the configuration's files have changed since they were loaded; web: all 2 backends up; \
             type `lb check --diff`",
        ),
        (many(0), "all 6 services well"),
        (many(1), "web: 1 of 2 backends up: web2 refused; the other 6 services well; type `lb explain web`"),
        (
            many(7),
            "web: 1 of 2 backends up: web2 refused; web: 1 of 2 backends up: web2 refused; \
             web: 1 of 2 backends up: web2 refused; web: 1 of 2 backends up: web2 refused; \
             web: 1 of 2 backends up: web2 refused; 2 more services in trouble; the other 6 services well; \
             type `lb explain web`",
        ),
        (unconfirmed, "detaches at 02:16:00 unless `lb confirm` comes first; web: all 2 backends up"),
    ];
    for (status, expected) in table {
        assert_eq!(sentence_in(&status, &TimeZone::UTC), expected);
    }
}

#[test]
fn the_table_is_aligned_and_complete() {
    let expected = "\
db-write: no writer since 02:13:07: db1 refused, db2 and db3 not Primary; 1 alarm; web: 1 of 2 backends up: web2 refused; type `lb explain db`
ALARM: the port cells of 10.0.0.11:80 are 93 % full

lb 0.1.0, instance lb, pid 4242, since 2026-03-01 00:00:00 (2h15m)
  INTERFACE  MODE    EXIT      PROGRAM
  eth0       native  redirect       17

web  203.0.113.10:80/tcp  snat, least-load, no backend: reset
  12 live, 4711 opened, 38.0 new/s, dropped 3 no-backend
  BACKEND  ADDRESS       STATE    FOR  WEIGHT    NOW  LOAD  CONNECT   LIVE  OPENED  SHARE  NEXT HOP          REASON
  web1     10.0.0.11:80  up     2m12s     100   87.5  0.42  0.31 ms  12/60    4000  100 %  resolved
  web2     10.0.0.12:80  down   2m12s     100  100.0     -        -      0       0    0 %  no answer to ARP  refused

db-write  203.0.113.20:3306/tcp  snat, round-robin, no backend: hold, agent lost: pass
  new connections wait for at most 3 s
  0 live, 0 opened, 0.0 new/s
  BACKEND  ADDRESS        STATE    FOR  WEIGHT    NOW  LOAD  CONNECT  LIVE  OPENED  SHARE  NEXT HOP  REASON
  db1      10.0.1.1:3306  up     2m12s     100  100.0     -        -     0       0    0 %  resolved

cluster db: no writer for 2m05s, epoch 7
  NODE  ADDRESS        READINESS  STATE        CONF ID  QUEUE  REASON
  db1   10.0.1.1:3306  not-ready  -                  -      -  refused
  db2   10.0.1.2:3306  not-ready  Initialized       18      0  not Primary
  db3   10.0.1.3:3306  not-ready  -                  -      -  not Primary

  PACKETS BY REASON   COUNT
  forwarded          123456
  no-backend              3
";
    assert_eq!(render_in(&full_status(), &TimeZone::UTC), expected);
}

#[test]
fn what_is_known_of_a_name_fits_a_screen() {
    let expected = "\
web/web2  backend  10.0.0.12:80
  state        down for 2m12s
  why          refused, confirmed
  ALARM        split brain
  weight       0.0 = 100 × 0 health × 0.85 load
               health: refused, confirmed
  connections  web: 3 live of at most 60, 612 opened, 0 % of the new ones
  next hop     02:00:0a:4d:00:0c via eth0
  probe        HTTP GET /ping at 10.0.0.12:80, every 1s
  last probe   refused, 1s ago
  members      a/b up
  of late      2026-03-01 02:13:00.000 web/web2: up → down: refused, confirmed
  type         curl -i http://10.0.0.12:80/ping  ask it
               lb events                         watch
";
    assert_eq!(explained_in(&explanation(), &TimeZone::UTC), expected);
}
