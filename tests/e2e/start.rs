//! What keeps a node from starting, and what it says then.

use std::net::TcpListener;

use crate::device::Device;
use crate::node::{Node, Setup};
use crate::token::{Issuer, SECRET, jwt_setup};

#[track_caller]
fn refuses(setup: Setup, words: &[&str]) {
    let log = setup.start_refused();
    for word in words {
        assert!(log.contains(word), "{word} is not in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for key in ["listen.devices", "listen.api", "listen.peer", "listen.ops"] {
        let setting = format!("{key}={addr}");
        refuses(Setup::new(&[&setting]), &[key, &addr.to_string()]);
    }
}

#[test]
fn a_port_of_another_node_is_in_use_although_it_could_be_shared() {
    let node = Node::start(&[]);
    for (key, addr) in [
        ("listen.devices", node.ready.devices),
        ("listen.api", node.ready.api),
        ("listen.peer", node.ready.peer),
        ("listen.ops", node.ready.ops),
    ] {
        let setting = format!("{key}={addr}");
        refuses(Setup::new(&[&setting]), &[key]);
    }
}

#[test]
fn two_nodes_share_a_port_when_both_are_told_to() {
    let first = Node::start(&["listen.share=true"]);
    let setting = format!("listen.devices={}", first.ready.devices);
    let second = Node::start(&["listen.share=true", &setting]);
    assert_eq!(second.ready.devices, first.ready.devices);
    for d in 0..10 {
        Device::connect_anywhere(first.ready.devices, &format!("tv-{d}"));
    }
}

#[test]
fn a_listener_open_to_the_network_needs_keys() {
    for (setting, words) in [
        ("listen.devices=0.0.0.0:0", ["listen.devices", "auth.mode"]),
        ("listen.api=0.0.0.0:0", ["listen.api", "api.keys"]),
        ("listen.peer=[::]:0", ["listen.peer", "api.keys"]),
        ("listen.ops=[::]:0", ["listen.ops", "ops.key_file"]),
    ] {
        refuses(Setup::new(&[setting]), &words);
    }
}

#[test]
fn a_listener_open_to_the_network_starts_with_keys() {
    let (hs256, es256) = (Issuer::hs256(SECRET), Issuer::es256());
    let open = ["listen.devices=0.0.0.0:0", "listen.api=0.0.0.0:0"];
    let node = jwt_setup(&open, &hs256, &es256, "").start();
    let path = format!("/ws?token={}", hs256.token("tv-1", 60));
    let addr = ([127, 0, 0, 1], node.ready.devices.port()).into();
    Device::open(addr, &path, &[]).unwrap().await_welcome();
}

#[test]
fn a_key_file_that_cannot_be_read_is_named() {
    let keys = "[[api.keys]]\nname = \"a\"\nkey_file = \"/nowhere/a.key\"\nroles = [\"send\"]\n";
    refuses(
        Setup::new(&[]).config(keys),
        &["api.keys", "/nowhere/a.key"],
    );
    let keys = "[auth]\nmode = \"jwt\"\n[[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = \"/nowhere/b.pem\"\n
        [[api.keys]]\nname = \"a\"\nkey_file = \"/nowhere/a.key\"\nroles = [\"send\"]\n";
    refuses(
        Setup::new(&[]).config(keys),
        &["auth.keys", "/nowhere/b.pem"],
    );
    refuses(
        Setup::new(&["ops.key_file=/nowhere/c.key"]),
        &["ops.key_file", "/nowhere/c.key"],
    );
}

#[test]
fn a_key_that_is_no_key_is_named_and_not_shown() {
    let setup = Setup::new(&[]);
    let api = setup.file("api.key", "an-api-key-of-some-length-0123456789");
    let bad = setup.file(
        "es256.pem",
        "-----BEGIN PUBLIC KEY-----\nbm90IGEga2V5\n-----END PUBLIC KEY-----\n",
    );
    let toml = format!(
        "[auth]\nmode = \"jwt\"\n[[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = {bad:?}\n
        [[api.keys]]\nname = \"a\"\nkey_file = {api:?}\nroles = [\"send\"]\n"
    );
    let log = setup.config(&toml).start_refused();
    assert!(
        log.contains("es256.pem") && log.contains("auth.keys"),
        "{log}"
    );
    assert!(!log.contains("bm90IGEga2V5"), "{log}");
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_right_one() {
    refuses(
        Setup::new(&["limits.conections_max=5"]),
        &["limits.conections_max", "connections_max"],
    );
    let toml = "\n\n[limits]\nmesage_bytes_max = \"1KiB\"\n";
    let words = [
        "tautline.toml",
        "mesage_bytes_max",
        "message_bytes_max",
        "4",
    ];
    refuses(Setup::new(&[]).config(toml), &words);
    let setup = Setup::new(&[]).variable("TAUTLINE_LIMITS_CONECTIONS_MAX", "5");
    refuses(
        setup,
        &[
            "TAUTLINE_LIMITS_CONECTIONS_MAX",
            "TAUTLINE_LIMITS_CONNECTIONS_MAX",
        ],
    );
}

#[test]
fn a_value_that_makes_no_sense_is_named() {
    for (setting, word) in [
        ("limits.connections_max=0", "limits.connections_max"),
        ("limits.connections_max=many", "connections_max"),
        ("heartbeat.ping_after=45", "ping_after"),
        ("limits.message_bytes_max=1TiB", "message_bytes_max"),
        ("listen.api=localhost", "listen.api"),
        ("auth.mode=none", "mode"),
        ("nonsense", "nonsense"),
    ] {
        refuses(Setup::new(&[setting]), &[word]);
    }
    refuses(Setup::new(&[]).config("[limits\n"), &["tautline.toml"]);
}

#[test]
fn a_variable_beats_the_file_and_a_flag_beats_both() {
    let setup = Setup::new(&["lifetime.age_jitter=0s", "lifetime.age_max=7m"])
        .config("[heartbeat]\nping_after = \"50s\"\n[lifetime]\nage_max = \"9m\"\n")
        .variable("TAUTLINE_HEARTBEAT_PING_AFTER", "55s")
        .variable("TAUTLINE_LIFETIME_AGE_MAX", "8m");
    let welcome = Device::connect(&setup.start(), "tv-1").welcome;
    assert_eq!(
        (&welcome["ping_ms"], &welcome["max_age_ms"]),
        (&55_000.into(), &420_000.into())
    );
}
