//! The sentence and the table, against exact texts.

use jiff::tz::TimeZone;

use super::*;
use crate::api::{render::render_in, sentence::sentence_in};

#[test]
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
    let table = [
        (
            status(vec![web([UP, UP]), db_write()], vec![cluster(Some("db1"), vec![])]),
            "web: all 2 backends up; db-write: writer db1",
        ),
        (
            status(vec![web([UP, UP]), db_write()], vec![broken_cluster()]),
            "db-write: no writer since 02:13:07: db1 refused, db2 and db3 not Primary; \
             web: all 2 backends up; type `lb status`",
        ),
        (status(vec![web([UP, REFUSED])], vec![]), "web: 1 of 2 backends up: web2 refused; type `lb status`"),
        (
            status(vec![web([REFUSED, REFUSED])], vec![]),
            "web: no backend up since 02:13:00: web1 and web2 refused; type `lb status`",
        ),
        (status(vec![web([UP, DRAINING])], vec![]), "web: 1 of 2 backends up: web2 draining"),
        (status(vec![], vec![]), "no service is configured"),
        (status(vec![service("web", vec![])], vec![]), "web: no backend is configured; type `lb status`"),
        (many(0), "all 6 services well"),
        (many(1), "web: 1 of 2 backends up: web2 refused; the other 6 services well; type `lb status`"),
        (unconfirmed, "detaches at 02:16:00 unless `lb confirm` comes first; web: all 2 backends up"),
    ];
    for (status, expected) in table {
        assert_eq!(sentence_in(&status, &TimeZone::UTC), expected);
    }
}

#[test]
fn the_table_is_aligned_and_complete() {
    let expected = "\
web: 1 of 2 backends up: web2 refused; db-write: no writer since 02:13:07: db1 refused, db2 and db3 not Primary
ALARM: the port cells of 10.0.0.11:80 are 93 % full

lb 0.1.0, instance lb, pid 4242, since 2026-03-01 00:00:00 (2h15m)
  INTERFACE  MODE    EXIT      PROGRAM
  eth0       native  redirect       17

web  203.0.113.10:80/tcp  snat, least-load, no backend: reset
  12 live, 4711 opened, 38.0 new/s, dropped 3 no-backend
  BACKEND  ADDRESS       STATE    FOR  WEIGHT    NOW  LOAD  CONNECT   LIVE  OPENED  SHARE  NEXT HOP          REASON
  web1     10.0.0.11:80  up     2m12s     100   87.5  0.42  0.31 ms  12/60    4000  100 %  resolved
  web2     10.0.0.12:80  down   2m12s     100  100.0     -        -      0       0    0 %  no answer to ARP  refused

db-write  203.0.113.20:3306/tcp  snat, round-robin, no backend: hold
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
