//! What nobody may notice, and what somebody would.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Bench, masked, request};
use crate::config::Config;
use crate::reactor::api::service::hot::Hot;

#[test]
fn the_answers_are_hypers_byte_for_byte() {
    let seeds = match std::env::var("SIM_SEED") {
        Ok(seed) => seed.parse::<u64>().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..std::env::var("SIM_SEEDS").map_or(300, |seeds| seeds.parse().unwrap()),
    };
    let mut answers = 0;
    for seed in seeds {
        eprintln!("SIM_SEED={seed} (front)");
        let mut random = SmallRng::seed_from_u64(seed);
        let is_early = random.random_ratio(1, 8);
        let stream = match is_early {
            true => request::early(&mut random),
            false => request::stream(&mut random),
        };
        let (mut bench, mut alone) = (Bench::new(false), Bench::new(true));
        let expected = alone.ask(&[&stream]);
        let pieces = match is_early {
            true => vec![&stream[..]],
            false => cut(&stream, &mut random),
        };
        let got = bench.ask(&pieces);
        let (got, expected) = (masked(&got), masked(&expected));
        let beyond = expected.strip_prefix(&got).unwrap_or(&expected);
        let is_same = beyond.is_empty() || is_beyond_close(&got, beyond);
        assert!(
            is_same,
            "got\n{got}\nexpected\n{expected}\nfor {}",
            stream.escape_ascii()
        );
        assert_eq!(sorted(&bench), sorted(&alone), "devices got the same");
        answers += got.matches("HTTP/1.1 ").count();
    }
    assert!(answers > 0, "nothing was answered");
}

/// Whether this is a refusal of what stands behind a request that ended the connection. With hyper alone the guard has read
/// ahead, if it came early enough; in front of hyper nothing is read behind such a request.
fn is_beyond_close(answers: &str, beyond: &str) -> bool {
    let Some(last) = answers.rfind("HTTP/1.") else {
        return false;
    };
    let last = &answers[last..];
    let closes = last.starts_with("HTTP/1.0") || last.contains("\r\nconnection: close\r\n");
    closes && beyond.matches("\r\nConnection: close\r\n").count() == 1
}

/// The stream in pieces: whole, in a few, or byte by byte.
fn cut<'a>(stream: &'a [u8], random: &mut SmallRng) -> Vec<&'a [u8]> {
    let size = match random.random_range(0..4) {
        0 => stream.len().max(1),
        1 => 1,
        2 => random.random_range(2..64),
        _ => random.random_range(64..2_048),
    };
    stream.chunks(size).collect()
}

/// What each device got, in its order.
fn sorted(bench: &Bench) -> Vec<(usize, String)> {
    let mut heard = bench.heard.clone();
    heard.sort_by_key(|(device, _)| *device);
    heard
}

fn hot(device: usize, number: usize) -> Vec<u8> {
    let body = number.to_string();
    format!(
        "POST /v1/devices/d-{device}/messages?wait=written HTTP/1.1\r\nHost: sim\r\nX-Request-Id: r-{number}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The numbers of the requests that were answered, in order.
fn answered(bench: &Bench) -> Vec<usize> {
    let text = String::from_utf8_lossy(&bench.answers).into_owned();
    let ids = text.split("x-request-id: r-").skip(1);
    ids.map(|rest| rest.split("\r\n").next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_hand_over_at_every_byte_loses_nothing() {
    let stream = [
        hot(0, 1),
        b"POST /v1/devices/d-1/messages HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n20\r\n0\r\n\r\n".to_vec(),
        hot(1, 3),
        hot(2, 4),
        b"GET /v1/devices/d-1 HTTP/1.1\r\nHost: sim\r\n\r\n".to_vec(),
        hot(3, 5),
        hot(1, 6),
        b"GET /v1/openapi.json HTTP/1.1\r\nHost: sim\r\n\r\n".to_vec(),
        hot(0, 7),
        b"nonsense\r\n\r\n".to_vec(),
        hot(0, 8),
    ]
    .concat();
    let mut alone = Bench::new(true);
    let expected = masked(&alone.ask(&[&stream]));
    assert_eq!(expected.matches("HTTP/1.1 ").count(), 10, "{expected}");
    let mut bench = Bench::new(false);
    for at in 0..=stream.len() {
        let (first, second) = stream.split_at(at);
        let got = bench.ask(&[first, second]);
        assert_eq!(masked(&got), expected, "cut at {at}");
        assert_eq!(bench.heard.len(), alone.heard.len(), "cut at {at}");
        bench.heard.clear();
    }
}

#[test]
fn answers_leave_in_the_order_of_their_requests() {
    let mut bench = Bench::new(false);
    // The first and the third are for shards that stand still, the others are written at once.
    let stream = [hot(1, 1), hot(0, 2), hot(2, 3), hot(0, 4), hot(3, 5)].concat();
    bench.send(&stream);
    bench.pass(1);
    bench.iterate(0);
    bench.look();
    assert_eq!(bench.heard.len(), 2, "what is here has arrived");
    assert!(answered(&bench).is_empty(), "the first is not answered");
    // Who is woken here has his turn in the next iteration.
    [2, 0, 0].into_iter().for_each(|i| bench.iterate(i));
    bench.look();
    assert!(
        answered(&bench).is_empty(),
        "the third is, the first is not"
    );
    [1, 0, 0].into_iter().for_each(|i| bench.iterate(i));
    bench.look();
    assert_eq!(answered(&bench), [1, 2, 3, 4, 5]);
}

#[test]
fn a_body_that_comes_after_its_head_is_waited_for_in_front_of_hyper() {
    let mut bench = Bench::new(false);
    let stream = [hot(1, 1), hot(0, 2), hot(2, 3)].concat();
    for piece in [&stream[..stream.len() - 1], &stream[stream.len() - 1..]] {
        assert!(answered(&bench).is_empty() || answered(&bench) == [1, 2]);
        bench.send(piece);
        (0..5).for_each(|_| bench.step(1));
    }
    assert_eq!(answered(&bench), [1, 2, 3]);
    assert!(!bench.has_needed_hyper());
}

#[test]
fn a_body_that_does_not_come_has_its_time() {
    for is_hyper_alone in [false, true] {
        let mut bench = Bench::new(is_hyper_alone);
        bench.send(
            b"POST /v1/devices/d-1/messages HTTP/1.1\r\nHost: sim\r\nContent-Length: 3\r\n\r\nab",
        );
        bench.step(1);
        assert_eq!(bench.has_needed_hyper(), is_hyper_alone);
        let body_timeout = Config::default().api.body_timeout.as_millis();
        let ms = u64::try_from(body_timeout).unwrap();
        (0..ms / 100 - 5).for_each(|_| bench.step(100));
        assert!(!bench.back_end.borrow().is_ended_by_node);
        (0..15).for_each(|_| bench.step(100));
        assert!(bench.back_end.borrow().is_ended_by_node);
    }
}

#[test]
fn hyper_waits_for_what_is_in_front_of_it() {
    let mut bench = Bench::new(false);
    let other = b"GET /v1/connections HTTP/1.1\r\nHost: sim\r\nX-Request-Id: r-2\r\n\r\n";
    bench.send(&[&hot(1, 1)[..], other, &hot(0, 3)].concat());
    bench.pass(1);
    (0..3).for_each(|_| bench.iterate(0));
    bench.look();
    assert!(bench.answers.is_empty() && bench.heard.is_empty());
    (0..9).for_each(|_| bench.step(1));
    assert_eq!(answered(&bench), [1, 2, 3]);
}

#[test]
fn a_connection_has_its_window_and_what_comes_behind_it_waits() {
    let mut bench = Bench::new(false);
    let many = 3 * Hot::WINDOW;
    let stream: Vec<u8> = (0..many).flat_map(|number| hot(1, number)).collect();
    bench.send(&stream);
    bench.pass(1);
    (0..5).for_each(|_| bench.iterate(0));
    assert_eq!(bench.world.shards[0].api.waiters.len(), Hot::WINDOW);
    (0..40).for_each(|_| bench.step(1));
    assert!(answered(&bench).into_iter().eq(0..many));
    let data: Vec<_> = bench.heard.iter().map(|(_, data)| data.clone()).collect();
    assert!(
        data.into_iter()
            .eq((0..many).map(|number| format!("{number}")))
    );
}

#[test]
fn a_back_end_that_leaves_in_the_middle_leaves_nothing_behind() {
    for leaves_politely in [false, true] {
        let mut bench = Bench::new(false);
        bench.send(&[hot(1, 1), hot(0, 2), hot(1, 3)].concat());
        bench.pass(1);
        bench.iterate(0);
        assert_eq!(bench.world.shards[0].api.waiters.len(), 3);
        if leaves_politely {
            bench.back_end.borrow_mut().finish();
        } else {
            bench.back_end.borrow_mut().cut();
        }
        (0..10).for_each(|_| bench.step(1));
        assert_eq!(bench.heard.len(), 3, "what was taken up arrives");
        let shard = &bench.world.shards[0];
        assert_eq!(shard.api.waiters.len(), 0);
        assert_eq!(shard.cells().api_connections.value(), 0);
        let told = if leaves_politely {
            vec![1, 2, 3]
        } else {
            vec![]
        };
        assert_eq!(answered(&bench), told);
    }
}

/// A chunked body that is there whole, behind a refusal that was made without it: hyper has still to read it to its end.
#[test]
fn hyper_ends_what_it_has_refused_early() {
    let refused = |field: &str| {
        format!(
            "POST /v1/devices/%20/messages HTTP/1.1\r\nHost: sim\r\n{field}Transfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        )
        .into_bytes()
    };
    let mut bench = Bench::new(false);
    bench.send(&[refused("Connection: close\r\n"), hot(0, 1)].concat());
    (0..9).for_each(|_| bench.step(1));
    let text = String::from_utf8_lossy(&bench.answers).into_owned();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(bench.back_end.borrow().is_ended_by_node);
    assert!(bench.heard.is_empty(), "nothing behind it is carried out");
    let get = b"GET /v1/devices/d-1 HTTP/1.1\r\nHost: sim\r\n\r\n".to_vec();
    let stream = [refused(""), hot(0, 1), get].concat();
    let (mut bench, mut alone) = (Bench::new(false), Bench::new(true));
    let (got, expected) = (bench.ask(&[&stream]), alone.ask(&[&stream]));
    assert_eq!(masked(&got), masked(&expected));
}
