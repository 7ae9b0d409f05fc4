//! Connections whose handshake is done.

use std::io::Write;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection};

use super::{Authority, Pair, far_builder, policy};
use crate::metrics::TlsFailure;
use crate::net::tls::policy::{TicketKeys, TlsPolicy};
use crate::net::tls::record::{Content, RecordKeys};

#[test]
fn a_record_that_was_tampered_with_ends_the_connection_after_what_came_before() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    let mut records = Vec::new();
    for text in [b"good", b"evil"] {
        pair.far.writer().write_all(text).unwrap();
        pair.far.write_tls(&mut records).unwrap();
    }
    let last = records.len() - 1;
    records[last] ^= 1;
    pair.feed(&records);
    assert_eq!(pair.heard, b"good");
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
    let alert = pair.near.outgoing().to_vec();
    pair.deliver(&alert);
    assert!(pair.far.process_new_packets().is_err());
}

#[test]
fn new_keys_are_taken_and_a_flood_of_them_is_not() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    for _ in 0..100 {
        pair.far.refresh_traffic_keys().unwrap();
        pair.settle();
        pair.echo(b"hello");
    }
    let mut records = Vec::new();
    for _ in 0..100 {
        pair.far.refresh_traffic_keys().unwrap();
        while pair.far.wants_write() {
            pair.far.write_tls(&mut records).unwrap();
        }
    }
    pair.feed(&records);
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}

/// A far end that says what rustls would not.
struct Rogue {
    pair: Pair,
    tx: RecordKeys,
    rx: RecordKeys,
}

impl Rogue {
    fn new(policy: &Arc<TlsPolicy>, authority: &Authority) -> Self {
        let mut far = authority.far_config();
        far.enable_secret_extraction = true;
        let mut pair = Pair::new(policy, far);
        pair.settle();
        let name = ServerName::try_from("push.test").unwrap();
        let other = ClientConnection::new(Arc::new(authority.far_config()), name).unwrap();
        let far = std::mem::replace(&mut pair.far, other);
        let secrets = far.dangerous_extract_secrets().unwrap();
        Self {
            pair,
            tx: RecordKeys::new(secrets.tx).unwrap(),
            rx: RecordKeys::new(secrets.rx).unwrap(),
        }
    }

    fn say(&mut self, content: Content, bytes: &[u8]) {
        let mut record = Vec::new();
        self.tx.seal(content, bytes, &mut record);
        self.pair.feed(&record);
    }

    /// The next record that came back.
    fn hear(&mut self) -> Option<(Content, Vec<u8>)> {
        let mut record = self.pair.near.outgoing().to_vec();
        self.pair.near.take_sent(record.len());
        let (content, length) = self.rx.open(&mut record).ok()?;
        Some((content, record[5..5 + length].to_vec()))
    }
}

#[test]
fn an_open_connection_ends_when_the_rules_are_broken_and_the_far_end_is_told() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    for (content, bytes, alert) in [
        (Content::Alert, &[1][..], 50),
        (Content::Alert, &[], 50),
        (Content::Handshake, &[24, 0, 0, 1, 2], 10),
        (Content::Handshake, &[24, 0, 0, 1], 10),
        (Content::Handshake, &[1, 0, 0, 0, 0], 10),
        (Content::Handshake, &[], 10),
        (Content::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], 10),
    ] {
        let mut rogue = Rogue::new(&policy, &authority);
        rogue.say(Content::Data, b"before");
        rogue.say(content, bytes);
        assert_eq!(rogue.pair.heard, b"before");
        assert_eq!(
            rogue.pair.failure,
            Some(TlsFailure::Misbehaved),
            "{bytes:?}"
        );
        assert_eq!(rogue.hear(), Some((Content::Alert, vec![2, alert])));
    }
    for plain in [
        &b"\x15\x03\x03\x00\x02\x01\x00"[..],
        b"\x14\x03\x03\x00\x01\x01",
    ] {
        let mut rogue = Rogue::new(&policy, &authority);
        rogue.pair.feed(plain);
        assert_eq!(
            rogue.pair.failure,
            Some(TlsFailure::Misbehaved),
            "{plain:?}"
        );
        assert_eq!(rogue.hear(), Some((Content::Alert, vec![2, 10])));
    }
    let mut rogue = Rogue::new(&policy, &authority);
    rogue.say(Content::Alert, &[2, 40]);
    assert_eq!(rogue.pair.failure, Some(TlsFailure::Alert));
    assert_eq!(rogue.hear(), None, "who has given up is told nothing");
}

#[test]
fn what_says_nothing_is_taken_so_often_and_no_more() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut rogue = Rogue::new(&policy, &authority);
    for _ in 0..32 {
        rogue.say(Content::Alert, &[1, 90]);
    }
    assert_eq!(rogue.pair.failure, None);
    rogue.say(Content::Data, b"a word in between");
    rogue.say(Content::Alert, &[1, 90]);
    rogue.say(Content::Data, b"");
    assert_eq!(rogue.pair.failure, None);
    for _ in 0..32 {
        rogue.say(Content::Alert, &[1, 90]);
    }
    assert_eq!(rogue.pair.failure, Some(TlsFailure::Misbehaved));
    let mut rogue = Rogue::new(&policy, &authority);
    rogue.say(Content::Alert, &[1, 90]);
    rogue.say(Content::Alert, &[1, 0]);
    assert!(rogue.pair.near.is_over());
}

#[test]
fn every_suite_carries_bytes_and_new_keys() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
        let mut crypto = rustls::crypto::aws_lc_rs::default_provider();
        crypto.cipher_suites = vec![*suite];
        let far = ClientConfig::builder_with_provider(Arc::new(crypto))
            .with_protocol_versions(&[suite.version()])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let mut pair = Pair::new(&policy, far);
        pair.settle();
        if pair.secured.is_none() {
            // Suites for RSA, with a certificate for ECDSA.
            assert_eq!(pair.failure, Some(TlsFailure::Incompatible), "{suite:?}");
            continue;
        }
        pair.echo(b"hello");
        if suite.tls13().is_some() {
            pair.far.refresh_traffic_keys().unwrap();
            pair.echo(&[7; 40_000]);
        }
    }
}

#[test]
fn what_is_said_while_a_record_is_incomplete_arrives() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    let mut records = Vec::new();
    pair.far.refresh_traffic_keys().unwrap();
    pair.far.writer().write_all(b"in two halves").unwrap();
    while pair.far.wants_write() {
        pair.far.write_tls(&mut records).unwrap();
    }
    for cut in 0..records.len() {
        pair.feed(&records[cut..=cut]);
        assert_eq!(pair.say(b"meanwhile"), b"meanwhile");
    }
    assert_eq!(pair.heard, b"in two halves");
}

#[test]
fn tickets_go_along_with_the_first_record_that_says_something() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    for (version, is_latest) in [(&TLS12, false), (&TLS13, true)] {
        let config = far_builder(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let mut pair = Pair::new(&policy, config);
        while pair.secured.is_none() {
            let mut sent = Vec::new();
            pair.far.write_tls(&mut sent).unwrap();
            pair.feed(&sent);
            if pair.near.owes() {
                let records = pair.near.outgoing().to_vec();
                pair.near.take_sent(records.len());
                pair.deliver(&records);
            }
        }
        assert_eq!(
            !pair.near.outgoing().is_empty(),
            is_latest,
            "tickets are held"
        );
        assert!(!pair.far.is_handshaking(), "it has all it waits for");
        let mut request = Vec::new();
        pair.far.writer().write_all(b"request").unwrap();
        pair.far.write_tls(&mut request).unwrap();
        pair.feed(&request);
        assert_eq!(pair.heard, b"request");
        assert!(!pair.near.owes(), "they wait for the answer");
        assert_eq!(pair.far.tls13_tickets_received(), 0);
        assert_eq!(pair.say(b"welcome"), b"welcome");
        assert_eq!(pair.far.tls13_tickets_received(), u32::from(is_latest));
    }
}

#[test]
fn a_goodbye_is_heard_and_said_once() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut pair = Pair::new(&policy, authority.far_config());
    pair.settle();
    pair.far.send_close_notify();
    pair.settle();
    assert!(pair.near.is_over());
    assert_eq!(
        pair.say(b"the answer"),
        b"the answer",
        "our side is still open"
    );
    pair.near.say_goodbye();
    let records = pair.near.outgoing().to_vec();
    pair.near.take_sent(records.len());
    pair.near.say_goodbye();
    assert!(pair.near.outgoing().is_empty());
    pair.deliver(&records);
    assert!(pair.far.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn renegotiation_is_refused() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let far = far_builder(&[&TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut pair = Pair::new(&policy, far);
    pair.settle();
    // A hello in plain, behind the handshake.
    pair.feed(b"\x16\x03\x03\x00\x04\x01\x00\x00\x00");
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}
