//! Tokens: where they travel, which are refused, how they end, how keys change.

use jsonwebtoken::Algorithm;
use nix::sys::signal::Signal;
use serde_json::json;
use tungstenite::Message;

use crate::canary::Canary;
use crate::deadline::eventually;
use crate::device::Device;
use crate::node::Node;
use crate::token::{Issuer, SECRET, jwt_setup, now_s, unsigned};

const PAGE: (&str, &str) = ("Origin", "https://app.example.com");
const ORIGINS: &str = r#"origins = ["https://app.example.com"]"#;

fn jwt_node(settings: &[&str]) -> (Node, Issuer, Issuer) {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let auth = format!("cookie = \"tt\"\n{ORIGINS}");
    // One reactor, which a canary shares with whoever makes trouble.
    let settings: Vec<_> = ["reactor.threads=1"]
        .iter()
        .chain(settings)
        .copied()
        .collect();
    let node = jwt_setup(&settings, &hs256, &es256, &auth).start();
    (node, hs256, es256)
}

fn with_query(node: &Node, token: &str) -> Result<Device, u16> {
    let mut device = Device::open(node.ready.devices, &format!("/ws?token={token}"), &[])?;
    device.await_welcome();
    Ok(device)
}

fn canary<'n>(node: &'n Node, issuer: &Issuer) -> Canary<'n> {
    Canary::with(
        node,
        with_query(node, &issuer.token("canary", 600)).unwrap(),
    )
}

#[test]
fn a_token_may_come_in_the_header_the_query_a_cookie_or_the_first_message() {
    let (node, hs256, es256) = jwt_node(&[]);
    for issuer in [&hs256, &es256] {
        let token = issuer.token("tv-1", 600);
        let bearer = format!("Bearer {token}");
        let cookie = format!("other=1; tt={token}; more=2");
        let query = format!("/ws?token={token}");
        for (path, headers) in [
            ("/ws", vec![("Authorization", bearer.as_str())]),
            (query.as_str(), vec![]),
            ("/ws", vec![("Cookie", cookie.as_str()), PAGE]),
        ] {
            let mut device = Device::open(node.ready.devices, path, &headers).unwrap();
            device.await_welcome();
            assert_eq!(device.welcome["device_id"], "tv-1", "{path} {headers:?}");
        }
        let mut device = Device::open(node.ready.devices, "/ws", &[]).unwrap();
        device.say(&json!({"type": "hello", "token": token}));
        device.await_welcome();
        assert_eq!(node.push("tv-1", "", b"1").status, 200);
        assert_eq!(device.next()["data"], 1);
    }
}

#[test]
fn a_cookie_counts_only_for_a_page_on_the_list() {
    let (node, hs256, _) = jwt_node(&["limits.handshake_timeout=1s"]);
    let cookie = format!("tt={}", hs256.token("tv-1", 600));
    let foreign = [
        ("Cookie", cookie.as_str()),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(
        Device::open(node.ready.devices, "/ws", &foreign).err(),
        Some(403)
    );
    let without = [("Cookie", cookie.as_str())];
    if let Ok(mut device) = Device::open(node.ready.devices, "/ws", &without) {
        let (before, ..) = device.ending();
        assert!(before.is_empty(), "{before:?}");
    }
    assert_eq!(node.device_status("tv-1"), 404);
}

#[test]
fn the_token_decides_who_the_device_is() {
    let (node, hs256, _) = jwt_node(&[]);
    let token = hs256.sign(
        &json!({"sub": "tv-1", "exp": now_s() + 600, "user_id": "ann", "labels": {"os": "tizen"}}),
    );
    let path = format!("/ws?device_id=tv-9&user_id=eve&token={token}");
    let mut device = Device::open(node.ready.devices, &path, &[]).unwrap();
    device.await_welcome();
    assert_eq!(device.welcome["device_id"], "tv-1");
    let info = node.request("GET", "/v1/devices/tv-1", &[], b"").json();
    assert_eq!(
        (&info["user_id"], &info["labels"]["os"]),
        (&json!("ann"), &json!("tizen"))
    );
    assert_eq!(node.device_status("tv-9"), 404);
}

fn bad_tokens(hs256: &Issuer, es256: &Issuer) -> Vec<(&'static str, String)> {
    let good = json!({"sub": "tv-1", "exp": now_s() + 600});
    let public = Issuer::hs256(str::from_utf8(&es256.verifier).unwrap());
    let forged = hs256.token("tv-1", 600);
    let last = if forged.ends_with("AAAA") {
        "BBBB"
    } else {
        "AAAA"
    };
    let forged = format!("{}{last}", &forged[..forged.len() - 4]);
    vec![
        ("expired", hs256.token("tv-1", -5)),
        ("forged", forged),
        (
            "another secret",
            Issuer::hs256("another-secret-of-more-than-32-bytes").token("tv-1", 600),
        ),
        ("another key", Issuer::es256().token("tv-1", 600)),
        ("public key used as a secret", public.token("tv-1", 600)),
        ("HS512", hs256.sign_as(Algorithm::HS512, &good)),
        ("none", unsigned(&good)),
        ("no sub", hs256.sign(&json!({"exp": now_s() + 600}))),
        ("no exp", hs256.sign(&json!({"sub": "tv-1"}))),
        (
            "exp that is no number",
            hs256.sign(&json!({"sub": "tv-1", "exp": "tomorrow"})),
        ),
        (
            "sub that is no id",
            hs256.sign(&json!({"sub": "tv 1", "exp": now_s() + 600})),
        ),
        (
            "not yet valid",
            hs256.sign(&json!({"sub": "tv-1", "exp": now_s() + 600, "nbf": now_s() + 300})),
        ),
        (
            "exp as text",
            hs256.sign(&json!({"sub": "tv-1", "exp": "9999999999"})),
        ),
        (
            "nbf as text",
            hs256.sign(&json!({"sub": "tv-1", "exp": now_s() + 600, "nbf": "0"})),
        ),
        (
            "a key of nobody's",
            hs256.sign_with(&json!({"alg": "HS256", "kid": "../../hs256.key"}), &good),
        ),
        (
            "a key it brings itself",
            es256.sign_with(
                &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}),
                &good,
            ),
        ),
        (
            "an extension we do not know",
            hs256.sign_with(
                &json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
                &good,
            ),
        ),
        (
            "no signature",
            format!("{}.", hs256.token("tv-1", 600).rsplit_once('.').unwrap().0),
        ),
        (
            "a fourth part",
            format!("{}.AAAA", hs256.token("tv-1", 600)),
        ),
        (
            "too long",
            hs256.sign(&json!({"sub": "tv-1", "exp": now_s() + 600, "x": "y".repeat(3_900)})),
        ),
        ("garbage", "garbage".into()),
        ("dots", "..".into()),
    ]
}

#[test]
fn a_bad_token_is_401_and_for_a_browser_a_close_with_4500() {
    let (node, hs256, es256) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    let failures = node.metric("tautline_auth_failures_total", "");
    let cases = bad_tokens(&hs256, &es256);
    for (name, token) in &cases {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let refused = Device::open(node.ready.devices, "/ws", &headers).err();
        assert_eq!(refused, Some(401), "{name}");
        let path = format!("/ws?token={token}");
        let upgraded = Device::open(node.ready.devices, &path, &[PAGE]);
        let (before, code, reason) = upgraded.expect("upgraded").ending();
        assert_eq!((code, reason.as_str()), (4500, "unauthorized"), "{name}");
        assert!(before.is_empty(), "{name}: {before:?}");
    }
    let count = 2.0 * cases.len() as f64;
    node.await_metric("tautline_auth_failures_total", "", failures + count);
    canary.survives();
}

#[test]
fn a_bad_first_message_closes_with_4500() {
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    for first in [
        Message::text(json!({"type": "hello", "token": hs256.token("tv-1", -5)}).to_string()),
        Message::text(json!({"type": "hello"}).to_string()),
        Message::text(json!({"type": "ping"}).to_string()),
        Message::text("hello"),
        Message::binary(vec![1]),
    ] {
        let mut device = Device::open(node.ready.devices, "/ws", &[]).unwrap();
        device.send(first.clone());
        let (before, code, _) = device.ending();
        assert_eq!(code, 4500, "{first:?}");
        assert!(before.is_empty(), "{before:?}");
    }
    canary.survives();
}

#[test]
fn without_a_first_message_the_handshake_ends_at_its_deadline() {
    let (node, hs256, _) = jwt_node(&["limits.handshake_timeout=500ms"]);
    let mut canary = canary(&node, &hs256);
    let mut device = Device::open(node.ready.devices, "/ws", &[]).unwrap();
    let (before, ..) = device.ending();
    assert!(before.is_empty(), "{before:?}");
    canary.survives();
}

#[test]
fn a_raw_line_brings_its_token_in_the_request() {
    let (node, hs256, _) = jwt_node(&[]);
    let protocol = ("Sec-WebSocket-Protocol", "tautline.v1.raw");
    assert_eq!(
        Device::open(node.ready.devices, "/ws", &[protocol]).err(),
        Some(401)
    );
    let path = format!("/ws?token={}", hs256.token("tv-1", 600));
    let mut device = Device::open(node.ready.devices, &path, &[protocol]).unwrap();
    eventually("online", || {
        (node.push("tv-1", "", b"hi").status == 200).then_some(())
    });
    assert_eq!(device.receive(), Message::text("hi"));
}

#[test]
fn a_token_is_for_this_audience_and_from_this_issuer() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let auth = "audience = [\"push\"]\nissuer = [\"id.example\", \"old.example\"]";
    let node = jwt_setup(&[], &hs256, &es256, auth).start();
    let exp = now_s() + 600;
    for (claims, is_good) in [
        (
            json!({"sub": "tv-1", "exp": exp, "aud": "push", "iss": "old.example"}),
            true,
        ),
        (
            json!({"sub": "tv-1", "exp": exp, "aud": ["mail", "push"], "iss": "id.example"}),
            true,
        ),
        (
            json!({"sub": "tv-1", "exp": exp, "aud": "mail", "iss": "id.example"}),
            false,
        ),
        (
            json!({"sub": "tv-1", "exp": exp, "aud": "push", "iss": "evil.example"}),
            false,
        ),
        (json!({"sub": "tv-1", "exp": exp}), false),
    ] {
        let refused = with_query(&node, &hs256.sign(&claims)).err();
        assert_eq!(refused.is_none(), is_good, "{claims}: {refused:?}");
    }
}

#[test]
fn a_token_that_runs_out_ends_the_line_unless_it_is_refreshed() {
    let (node, hs256, _) = jwt_node(&["lifetime.goaway_grace=500ms"]);
    let mut refreshed = with_query(&node, &hs256.token("tv-1", 3)).unwrap();
    let mut forgetful = with_query(&node, &hs256.token("tv-2", 3)).unwrap();
    refreshed.say(&json!({"type": "refresh", "token": hs256.token("tv-1", 600)}));
    let (before, code, reason) = forgetful.ending();
    assert_eq!((code, reason.as_str()), (4006, "token_expired"));
    let is_goaway = |message: &Message| message.to_text().is_ok_and(|text| text.contains("goaway"));
    assert!(
        before.iter().any(is_goaway),
        "no go-away before a planned close: {before:?}"
    );
    refreshed.assert_alive();
    assert_eq!(node.push("tv-1", "", b"1").status, 200);
    node.await_metric(
        "tautline_connections_closed_total",
        r#"reason="token_expired""#,
        1.0,
    );
}

#[test]
fn a_refresh_never_makes_another_device_of_it() {
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    for token in [
        hs256.token("tv-2", 600),
        hs256.token("tv-1", -5),
        "garbage".into(),
    ] {
        let mut device = with_query(&node, &hs256.token("tv-1", 600)).unwrap();
        device.say(&json!({"type": "refresh", "token": token}));
        device.say(&json!({"type": "ping"}));
        let answer = device.receive();
        let is_refused = answer.is_close()
            || answer
                .to_text()
                .is_ok_and(|text| text.contains("unauthorized"));
        assert!(is_refused, "{answer:?}");
        assert_eq!(node.device_status("tv-2"), 404);
    }
    canary.survives();
}

#[test]
fn keys_change_without_a_restart_and_a_bad_file_keeps_the_old() {
    let (node, hs256, _) = jwt_node(&[]);
    let mut canary = canary(&node, &hs256);
    let path = node.dir().join("hs256.key");
    let next = Issuer::hs256("the-next-shared-secret-of-more-than-32-bytes");
    std::fs::write(&path, &next.verifier).unwrap();
    assert_eq!(
        with_query(&node, &next.token("tv-1", 600)).err(),
        Some(401),
        "before the signal"
    );
    node.signal(Signal::SIGHUP);
    eventually("the new key is good", || {
        with_query(&node, &next.token("tv-1", 600)).ok()
    });
    assert_eq!(
        with_query(&node, &hs256.token("tv-1", 600)).err(),
        Some(401),
        "the old key"
    );

    std::fs::write(&path, "short").unwrap();
    node.signal(Signal::SIGHUP);
    node.await_metric("tautline_config_reload_failures_total", "", 1.0);
    assert!(with_query(&node, &next.token("tv-1", 600)).is_ok());
    // The log has a writer of its own.
    eventually("the file is named", || {
        node.log().contains("hs256.key").then_some(())
    });

    std::fs::write(node.dir().join("tautline.toml"), "[limits]\nnonsense = 1\n").unwrap();
    node.signal(Signal::SIGHUP);
    node.await_metric("tautline_config_reload_failures_total", "", 2.0);
    assert!(with_query(&node, &next.token("tv-1", 600)).is_ok());
    canary.survives();
}

#[test]
fn a_key_set_verifies_tokens_by_their_algorithm() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (hs256, es256) = (
        Issuer::hs256("a-secret-in-a-key-set-of-more-than-32-bytes"),
        Issuer::es256(),
    );
    let k = URL_SAFE_NO_PAD.encode(&hs256.verifier);
    let setup = jwt_setup(
        &[],
        &Issuer::hs256(SECRET),
        &es256,
        r#"jwks_file = "PLACE""#,
    );
    let set = json!({"keys": [{"kty": "oct", "alg": "HS256", "k": k}, {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}]});
    let jwks = setup.file("jwks.json", set.to_string());
    let path = setup.dir().join("tautline.toml");
    let toml = std::fs::read_to_string(&path)
        .unwrap()
        .replace("PLACE", jwks.to_str().unwrap());
    let node = setup.config(&toml).start();
    for issuer in [&hs256, &es256, &Issuer::hs256(SECRET)] {
        assert!(with_query(&node, &issuer.token("tv-1", 600)).is_ok());
    }
}
