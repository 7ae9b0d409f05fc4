//! Requests of all kinds: hot, odd and hostile.

use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

/// A stream of requests, mostly hot; nothing behind a hostile one is read.
pub(super) fn stream(random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..random.random_range(1..24) {
        bytes.extend(match random.random_range(0..100) {
            0..60 => push(random, number, "HTTP/1.1", false),
            60..96 => odd(random, number),
            _ => hostile(random),
        });
    }
    if random.random_ratio(1, 6) {
        bytes.truncate(random.random_range(0..=bytes.len()));
    }
    bytes
}

/// A few requests, some of which are refused by their heads. Whether the connection survives that depends on how much of the
/// body hyper has by then, so these are to come in one piece, and fit its buffer.
pub(super) fn early(random: &mut SmallRng) -> Vec<u8> {
    let pushes = (0..2).map(|number| push(random, number, "HTTP/1.1", true));
    pushes.collect::<Vec<_>>().concat()
}

/// A push to one device.
fn push(random: &mut SmallRng, number: usize, version: &str, is_early: bool) -> Vec<u8> {
    let device = random.random_range(0..4);
    let queries = [
        "",
        "?wait=written",
        "?wait=queued",
        "?wait=acked",
        "?wait=written&timeout_ms=500",
        "?",
        "?wait=soon",
        "?timeout_ms=x",
        "?ttl=3",
        "?&&wait=queued",
    ];
    // The usual ones more often.
    let usual = random.random_range(0..queries.len());
    let query = queries[usual.min(random.random_range(0..queries.len()))];
    let names = ["d-", "d-", "d-", "d%2D", "d%2d", "%64-", "e-", "a%20", ""];
    let sound = if is_early { names.len() } else { 7 };
    let at = random.random_range(0..sound);
    let name = names[at.min(random.random_range(0..sound))];
    let is_envelope = random.random_ratio(1, 3);
    let body = if is_envelope {
        envelope(random, number)
    } else {
        let lengths = [0, 1, 5, 24, 200, 1_024, 1_025, 3_072, 3_073];
        let sound = if is_early {
            lengths.len()
        } else {
            lengths.len() - 1
        };
        let at = random.random_range(0..sound);
        let length = lengths[at.min(random.random_range(0..sound))];
        format!("{number:<length$}", length = length)[..length].to_owned()
    };
    let mut fields = fields(random, number);
    if is_envelope {
        fields += "Content-Type: application/json\r\n";
    }
    let is_chunked = is_early && random.random_ratio(1, 3);
    let length = if is_chunked {
        "Transfer-Encoding: chunked\r\n".to_owned()
    } else if body.is_empty() && random.random() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let body = if is_chunked { chunked(&body) } else { body };
    let (before, after) = if random.random() {
        (length, String::new())
    } else {
        (String::new(), length)
    };
    format!(
        "POST /v1/devices/{name}{device}/messages{query} {version}\r\n{before}Host: sim\r\n{fields}{after}\r\n{body}"
    )
    .into_bytes()
}

/// A body in two chunks, or in as many as it has bytes.
fn chunked(body: &str) -> String {
    let (first, second) = body.split_at(body.len() / 2);
    let parts = [first, second].into_iter().filter(|part| !part.is_empty());
    let chunks: String = parts
        .map(|part| format!("{:x}\r\n{part}\r\n", part.len()))
        .collect();
    chunks + "0\r\n\r\n"
}

fn envelope(random: &mut SmallRng, number: usize) -> String {
    let bodies = [
        format!(r#"{{"data":{number}}}"#),
        format!(r#"{{"data":{{"n":{number}}},"wait":"acked"}}"#),
        format!(r#"{{"data":[{number}],"ttl_ms":60000,"collapse_key":"k"}}"#),
        r#"{"data_b64":"AAEC"}"#.to_owned(),
        r#"{"data":1,"dat":2}"#.to_owned(),
        r#"{"data":1,"ttl_ms":0}"#.to_owned(),
        r#"{"data":1,"connection_id":"nonsense"}"#.to_owned(),
        format!(r#"{{"data":{number},"idempotency_key":"e{}"}}"#, number % 2),
        "{".to_owned(),
        String::new(),
    ];
    bodies.choose(random).unwrap().clone()
}

/// Fields that mean something, that mean nothing, and that are wrong.
fn fields(random: &mut SmallRng, number: usize) -> String {
    let given = format!("X-Request-Id: given-{number}\r\n");
    let all = [
        &*given,
        "x-request-ID: not an id\r\n",
        "User-Agent: sim/1\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n",
        "Connection: keep-alive\r\n",
        "CONNECTION: Keep-Alive\r\n",
        "Authorization: Bearer whatever\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: Application/JSON; charset=utf-8\r\n",
        "Content-Type: \r\n",
        "Content-Encoding: gzip\r\n",
        "TTL: 60\r\n",
        "TTL: 0\r\n",
        "TTL: x\r\n",
        "TTL: 1\r\nttl: 2\r\n",
        "Topic: score\r\n",
        "Topic: a b\r\n",
        "Urgency: high\r\n",
        "Urgency: now\r\n",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "traceparent: 1\r\n",
        "X-Name: \u{e9}\r\nX-Tab: a\tb\r\nX-Empty:\r\n",
        "Idempotency-Key: k1\r\n",
        "Idempotency-Key: k2\r\n",
        "Expect: 100-continue\r\n",
        "Expect: a pony\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: TE\r\nTE: trailers\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: h2c\r\n",
    ];
    let mut fields = String::new();
    for _ in 0..random.random_range(0..4) {
        // Those at the front more often.
        let at = random.random_range(0..all.len());
        fields += all[at.min(random.random_range(0..all.len()))];
    }
    fields
}

/// Sound requests that are not hot.
fn odd(random: &mut SmallRng, number: usize) -> Vec<u8> {
    let device = random.random_range(0..4);
    let start = format!("POST /v1/devices/d-{device}/messages HTTP/1.1\r\nHost: sim\r\n");
    let batch = format!(
        r#"{{"messages":[{{"to":{{"device":"d-0"}},"data":{number}}},{{"to":{{"device":"d-1"}},"data":{number}}},7]}}"#
    );
    let many = "A: b\r\n".repeat(random.random_range(60..66));
    let long = "x".repeat(random.random_range(7_500..8_300));
    let all = [
        format!("GET /v1/devices/d-{device} HTTP/1.1\r\nHost: sim\r\n\r\n"),
        format!("HEAD /v1/devices/d-{device} HTTP/1.1\r\nHost: sim\r\n\r\n"),
        format!("GET /v1/connections?n={number} HTTP/1.1\r\nHost: sim\r\nX-Request-Id: g\r\n\r\n"),
        format!(
            "PUT /v1/devices/d-{device}/messages HTTP/1.1\r\nHost: sim\r\nContent-Length: 2\r\n\r\nab"
        ),
        format!("{start}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        format!(
            "{start}Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n"
        ),
        format!(
            "{start}Idempotency-Key: o{}\r\nContent-Length: 2\r\n\r\n{:02}",
            number % 3,
            number % 3
        ),
        format!("{start}Content-Length: 0\r\n\r\n"),
        format!("{start}X-Long: {long}\r\n\r\n"),
        format!("{start}{many}\r\n"),
        format!(
            "POST http://sim/v1/devices/d-{device}/messages HTTP/1.1\r\nHost: sim\r\nContent-Length: 1\r\n\r\n7"
        ),
        format!(
            "POST /v1/messages:batch HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{batch}",
            batch.len()
        ),
        "POST /v1/users/a-1/messages HTTP/1.1\r\nHost: sim\r\nContent-Length: 1\r\n\r\n7"
            .to_owned(),
        format!(
            "POST /v1/devices/d-{device}/messages/ HTTP/1.1\r\nHost: sim\r\nContent-Length: 1\r\n\r\n7"
        ),
        format!(
            "POST /v1/devices/d-{device}/messages?a|b HTTP/1.1\r\nHost: sim\r\nContent-Length: 1\r\n\r\n7"
        ),
    ];
    match random.random_range(0..all.len() + 1) {
        at if at < all.len() => all[at].clone().into_bytes(),
        _ => push(random, number, "HTTP/1.0", false),
    }
}

/// What no two readers must see.
fn hostile(random: &mut SmallRng) -> Vec<u8> {
    let start = "POST /v1/devices/d-0/messages HTTP/1.1\r\nHost: sim\r\n";
    let all = [
        format!("{start}Content-Length: 1\r\nContent-Length: 1\r\n\r\n7"),
        format!("{start}Content-Length: +1\r\n\r\n7"),
        format!("{start}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{start}Transfer-Encoding: chunked\r\n\r\nxx\r\n"),
        format!("{start}Content-Length: 1\n\r\n7"),
        format!("{start}A b: c\r\n\r\n"),
        "POST /v1/devices/d-0/messages HTTP/1.1\r\nContent-Length: 1\r\n\r\n7".to_owned(),
        "POST /v1/devices/d-0/messages HTTP/2.0\r\nHost: sim\r\n\r\n".to_owned(),
        "\r\n".to_owned(),
        "\u{0}\u{1}garbage\r\n\r\n".to_owned(),
    ];
    all.choose(random).unwrap().clone().into_bytes()
}
