//! One message for all lines.

use crate::lying_server::Lie;
use crate::run::{Run, assert_all_counted, assert_all_named, run};

fn broadcast(lie: Lie) -> Run {
    let few = [
        "--connections=40",
        "--broadcasts=2",
        "--timeout=1500ms",
        "--body-bytes=30",
        "--canary=0",
    ];
    run(lie, "broadcast", &few)
}

#[test]
fn an_honest_broadcast_reaches_every_line_once() {
    let run = broadcast(Lie::None);
    assert!(run.passed, "{}", run.faults());
    assert_eq!(run.figure("broadcast.count"), 2.0);
    assert_eq!(run.figure("messages.received"), 80.0);
    assert_eq!(run.figure("broadcast.server_written"), 80.0);
    assert!(run.figure("broadcast.time") > 0.0);
}

#[test]
fn every_lie_about_a_broadcast_is_named() {
    let lies = [
        (Lie::Drop, "messages lost"),
        (Lie::Drop, "lines did not get a broadcast within 1s 500ms"),
        (Lie::Misdeliver, "messages lost"),
        (
            Lie::Refuse,
            "the server did not take a broadcast: HTTP status 503",
        ),
        (
            Lie::RefuseAndDeliver,
            "wrote a broadcast to 36 lines, and 40 have it",
        ),
        (Lie::Silence, "the server says of a broadcast"),
    ];
    assert_all_named(broadcast, &lies);
    let counted = [
        (Lie::Drop, "lost"),
        (Lie::Duplicate, "duplicate"),
        (Lie::Reorder, "lost"),
        (Lie::Misdeliver, "duplicate"),
        (Lie::Copy, "duplicate"),
        (Lie::Damage, "foreign"),
        (Lie::DamageRest, "foreign"),
    ];
    assert_all_counted(broadcast, &counted);
}
