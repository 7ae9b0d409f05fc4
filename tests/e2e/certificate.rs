//! Certificates: who is named by one, and what happens when they change.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rcgen::{KeyPair, SanType};
use rustls::ClientConfig;

use crate::authority::{Authority, dns, replace, shake_hands, welcome};
use crate::deadline::eventually;
use crate::device::Device;
use crate::http::Http;
use crate::node::{Node, Setup};
use crate::token::{Issuer, SECRET, jwt_setup};

/// A node with TLS that asks for certificates of the authority.
fn mutual(authority: &Authority, setup: Setup, section: &str, more: &[&str]) -> Setup {
    authority.write_pair(&setup, &KeyPair::generate().unwrap());
    let root = setup.file("root.pem", authority.pem());
    let mut setup = setup;
    for setting in Authority::settings(&setup, section) {
        setup = setup.set(&setting);
    }
    setup = setup.set(&format!("{section}.client_ca_file={}", root.display()));
    for setting in more {
        setup = setup.set(&format!("{section}.{setting}"));
    }
    setup
}

fn open(node: &Node, far: &Arc<ClientConfig>, path: &str) -> Result<String, u16> {
    let stream = shake_hands(node.ready.devices, far).unwrap();
    let mut device = Device::over(stream, path, &[]).map_err(|status| status.unwrap_or(0))?;
    device.await_welcome();
    Ok(device.welcome["device_id"].as_str().unwrap().to_owned())
}

/// A node that knows devices by their certificates.
fn by_certificate(authority: &Authority, kind: &str) -> Node {
    let setup = Setup::new(&["auth.mode=certificate"]);
    let setup = setup.key("a", "an-api-key-that-nobody-guesses", &["send"]);
    let identity = format!("client_identity={kind}");
    mutual(authority, setup, "devices_tls", &[&identity]).start()
}

#[test]
fn a_certificate_names_its_device() {
    let authority = Authority::new();
    let uri = SanType::URI("spiffe://example.org/device/tv-3".try_into().unwrap());
    let far = Arc::new(authority.far_as("tv-1", &[dns("tv-2"), uri]));
    for (kind, expected) in [("common_name", "tv-1"), ("dns", "tv-2"), ("uri", "tv-3")] {
        let node = by_certificate(&authority, kind);
        // What the device says of itself does not count.
        let path = "/ws?device_id=tv-9";
        assert_eq!(open(&node, &far, path).as_deref(), Ok(expected), "{kind}");
    }
}

#[test]
fn a_certificate_without_a_good_name_lets_nobody_in() {
    let authority = Authority::new();
    let node = by_certificate(&authority, "dns");
    for names in [&[][..], &[dns("tv-1"), dns("tv-2")]] {
        let far = Arc::new(authority.far_as("tv-1", names));
        assert_eq!(open(&node, &far, "/ws"), Err(401), "{names:?}");
    }
    let none = Arc::new(authority.far());
    let stranger = Arc::new(Authority::new().far_as("tv-1", &[dns("tv-1")]));
    assert!(refused_by_tls(node.ready.devices, &none));
    assert!(refused_by_tls(node.ready.devices, &stranger));
    node.await_metric("tautline_tls_failures_total", "cause=\"certificate\"", 1.0);
}

/// In TLS 1.3 a far end learns that its certificate was refused at its first read.
fn refused_by_tls(addr: SocketAddr, far: &Arc<ClientConfig>) -> bool {
    let Ok(mut stream) = shake_hands(addr, far) else {
        return true;
    };
    stream.read(&mut [0]).is_err()
}

#[test]
fn nobody_resumes_where_certificates_are_asked_for() {
    let authority = Authority::new();
    let node = by_certificate(&authority, "dns");
    let far = Arc::new(authority.far_as("", &[dns("tv-1")]));
    for _ in 0..3 {
        assert!(open(&node, &far, "/ws").is_ok());
    }
    let kind = |kind: &str| node.metric("tautline_tls_handshakes_total", kind);
    assert_eq!(
        (kind("kind=\"full\""), kind("kind=\"resumed\"")),
        (3.0, 0.0)
    );
}

#[test]
fn a_token_is_good_only_with_its_devices_certificate() {
    let authority = Authority::new();
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let setup = jwt_setup(&[], &hs256, &es256, "");
    let optional = ["client_identity=dns", "client_certificates=optional"];
    let node = mutual(&authority, setup, "devices_tls", &optional).start();
    let path = format!("/ws?token={}", hs256.token("tv-1", 600));
    let own = Arc::new(authority.far_as("", &[dns("tv-1")]));
    let none = Arc::new(authority.far());
    let other = Arc::new(authority.far_as("", &[dns("tv-2")]));
    assert_eq!(open(&node, &own, &path).as_deref(), Ok("tv-1"));
    assert_eq!(open(&node, &none, &path).as_deref(), Ok("tv-1"));
    assert_eq!(open(&node, &other, &path), Err(401));
    // In the first message as well.
    let stream = shake_hands(node.ready.devices, &other).unwrap();
    let mut device = Device::over(stream, "/ws", &[]).unwrap();
    let token = hs256.token("tv-1", 600);
    device.say(&serde_json::json!({"type": "hello", "token": token}));
    assert_eq!(device.close_code(), 4500);
}

#[test]
fn a_certificate_stands_for_an_api_key() {
    let authority = Authority::new();
    let toml = "[[api.keys]]\nname = \"billing\"\ncertificate = \"billing.internal\"\nroles = [\"send\"]\n";
    let setup = Setup::new(&[]).config(toml);
    let identity = ["client_identity=dns"];
    let node = mutual(&authority, setup, "api_tls", &identity).start();
    let mut device = Device::connect(&node, "tv-1");
    let ask = |far: &Arc<ClientConfig>, request: &str| {
        let mut stream = shake_hands(node.ready.api, far).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let send = "POST /v1/devices/tv-1/messages HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1";
    // Answered by the control plane, which must know it too.
    let list = "GET /v1/connections HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let billing = Arc::new(authority.far_as("", &[dns("billing.internal")]));
    assert_eq!(ask(&billing, send), "200");
    let message = device.next();
    assert_eq!(message["from"]["service"], "billing", "{message}");
    assert_eq!(ask(&billing, list), "403", "without the role");
    let other = Arc::new(authority.far_as("", &[dns("other.internal")]));
    assert_eq!(ask(&other, send), "401");
    assert_eq!(ask(&other, list), "401");
}

#[test]
fn a_certificate_opens_a_stream() {
    let authority = Authority::new();
    let toml = "[[api.keys]]\nname = \"billing\"\ncertificate = \"billing.internal\"\nroles = [\"send\"]\n\n\
        [[api.keys]]\nname = \"board\"\ncertificate = \"board.internal\"\nroles = [\"read\"]\n";
    let setup = Setup::new(&[]).config(toml);
    let identity = ["client_identity=dns"];
    let node = mutual(&authority, setup, "peer_tls", &identity).start();
    let mut device = Device::connect(&node, "tv-1");
    let stream_of = |name: &str| {
        let far = Arc::new(authority.far_as("", &[dns(name)]));
        let stream = shake_hands(node.ready.peer, &far).unwrap();
        Device::over(stream, "/v1/stream", &[])
    };
    let mut stream = stream_of("billing.internal").unwrap();
    stream.await_welcome();
    let record = serde_json::json!({"id": 1, "to": {"device": "tv-1"}, "data": 1});
    stream.say(&record);
    assert_eq!(device.next()["from"]["service"], "billing");
    assert_eq!(stream.next()["result"], "written");
    let refused = |name| stream_of(name).map(|_| ()).unwrap_err();
    assert_eq!(refused("board.internal"), Some(403));
    assert_eq!(refused("other.internal"), Some(401));
}

/// The certificate that a node shows.
fn shown(node: &Node, far: &Arc<ClientConfig>) -> Vec<u8> {
    let stream = shake_hands(node.ready.devices, far).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// Puts a new pair where the old one is, the certificate first.
fn renew(authority: &Authority, node: &Node) {
    let key = KeyPair::generate().unwrap();
    let pem = authority.certify("test", &[dns("test")], &key);
    replace(&node.dir().join("node.pem"), &pem);
    replace(&node.dir().join("node.key"), &key.serialize_pem());
}

#[test]
fn a_certificate_that_changes_is_taken_into_use_by_itself() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let far = Arc::new(authority.far());
    let mut before = welcome(node.ready.devices, &far, "tv-1");
    let old = shown(&node, &far);
    renew(&authority, &node);
    node.await_metric("tautline_certificate_reloads_total", "", 1.0);
    assert_ne!(shown(&node, &far), old);
    assert_eq!(
        node.metric("tautline_certificate_reload_failures_total", ""),
        0.0
    );
    before.assert_alive();
}

#[test]
fn a_pair_that_cannot_be_used_leaves_the_old_one_and_says_so() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let far = Arc::new(authority.far());
    let old = shown(&node, &far);
    let wrong = KeyPair::generate().unwrap().serialize_pem();
    replace(&node.dir().join("node.key"), &wrong);
    node.await_metric("tautline_certificate_reload_failures_total", "", 1.0);
    assert_eq!(shown(&node, &far), old);
    let log = node.log();
    assert!(log.contains("not the key of the certificate"), "{log}");
    assert!(!log.contains("PRIVATE"), "{log}");
    // A reload on request leaves everything as it was, and counts as one that failed.
    node.signal(Signal::SIGHUP);
    node.await_metric("tautline_config_reload_failures_total", "", 1.0);
    assert_eq!(shown(&node, &far), old);
    renew(&authority, &node);
    node.await_metric("tautline_certificate_reloads_total", "", 1.0);
    assert_ne!(shown(&node, &far), old);
}

#[test]
fn sighup_reads_certificates_again() {
    let authority = Authority::new();
    let node = authority.setup(&[]).start();
    let far = Arc::new(authority.far());
    let old = shown(&node, &far);
    renew(&authority, &node);
    node.signal(Signal::SIGHUP);
    eventually("the new certificate", || {
        (shown(&node, &far) != old).then_some(())
    });
    assert!(
        node.metric(
            "tautline_certificate_not_after_seconds",
            "listener=\"devices\""
        ) > 1.7e9
    );
}

#[test]
fn a_node_does_not_start_with_half_a_pair_or_a_wrong_one() {
    let authority = Authority::new();
    let setup = authority.setup(&[]);
    setup.file("node.key", KeyPair::generate().unwrap().serialize_pem());
    let told = setup.start_refused();
    assert!(told.contains("devices_tls.private_key_file"), "{told}");
    let told = Setup::new(&["devices_tls.certificate_file=/nowhere"]).start_refused();
    assert!(told.contains("devices_tls.certificate_file"), "{told}");
}

#[test]
fn a_certificate_for_devices_opens_no_other_door() {
    let authority = Authority::new();
    let node = by_certificate(&authority, "dns");
    let mut http = Http::connect(node.ready.api);
    let headers = [("Authorization", "Bearer wrong-0123456789abcdef")];
    let answer = http.request("POST", "/v1/devices/tv-1/messages", &headers, b"1");
    answer.assert_error(401, "unauthorized");
}
