//! Shaking hands: with whom, by what, and why not.

use std::sync::Arc;

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::{HandshakeKind, RootCertStore};

use super::{Authority, Pair, far_builder, policy};
use crate::config::Config;
use crate::config::section::{CertificateDemand, NameKind, Tls, TlsVersion};
use crate::metrics::TlsFailure;
use crate::net::tls::policy::{TicketKeys, TlsPolicies, TlsPolicy};
use crate::net::tls::session::Secured;

#[test]
fn both_versions_and_both_kinds_of_keys_carry_bytes_both_ways() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let long: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
    ] {
        let tls = Tls {
            pairs: vec![authority.pair("push.test", &key)],
            ..Tls::default()
        };
        let policy = policy(&tls, &keys);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for piece in [1, 700, usize::MAX] {
                let mut far = far_builder(&[version])
                    .with_root_certificates(authority.roots())
                    .with_no_client_auth();
                far.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                let mut pair = Pair::new(&policy, far);
                pair.piece = piece;
                pair.settle();
                assert_eq!(pair.failure, None);
                assert!(!pair.secured.clone().unwrap().is_resumed);
                assert_eq!(pair.far.alpn_protocol(), Some(&b"http/1.1"[..]));
                pair.echo(b"hello");
                if piece > 1 {
                    pair.echo(&long);
                }
                assert_eq!(format!("{:?}", pair.near), "Session { stage: Open, .. }");
                assert!(pair.near.outgoing().is_empty());
            }
        }
    }
}

#[test]
fn a_hello_in_many_small_records_is_read_and_an_endless_one_is_not() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    let mut far = authority.far_config();
    far.max_fragment_size = Some(64);
    let mut pair = Pair::new(&policy, far);
    pair.piece = 50;
    pair.settle();
    pair.echo(b"hello");
    // A hello that announces 60,000 bytes and keeps coming.
    let mut pair = Pair::new(&policy, authority.far_config());
    let mut record = vec![0x16, 3, 1, 0x10, 0];
    record.extend([0; 4_096]);
    record[5..9].copy_from_slice(&[1, 0, 0xea, 0x60]);
    let mut held = 0;
    while pair.failure.is_none() {
        pair.feed(&record);
        record[5..9].fill(0);
        held += record.len();
        assert!(held < 40_000, "kept without end");
    }
    assert_eq!(pair.failure, Some(TlsFailure::Misbehaved));
}

#[test]
fn sessions_are_resumed_after_a_reload_but_not_on_another_listener() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let far = far_builder(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        let far = Arc::new(far);
        let resumed = |policy: &Arc<TlsPolicy>| {
            let mut pair = Pair::with(policy, Arc::clone(&far), "push.test");
            pair.settle();
            pair.echo(b"hello");
            let is_resumed = pair.secured.unwrap().is_resumed;
            let kind = pair.far.handshake_kind().unwrap();
            assert_eq!(is_resumed, kind == HandshakeKind::Resumed);
            (is_resumed, pair.cost_us)
        };
        let first = resumed(&policy(&authority.tls(), &keys));
        let second = resumed(&policy(&authority.tls(), &keys));
        assert_eq!((first.0, second.0), (false, true), "{version:?}");
        assert!(second.1 < first.1, "{first:?} {second:?}");
        let config = Config {
            api_tls: authority.tls(),
            ..Config::default()
        };
        let policies = TlsPolicies::load(&config, &keys).unwrap();
        assert!(
            !resumed(&policies.api.unwrap()).0,
            "another listener's keys"
        );
    }
}

#[test]
fn who_shows_a_certificate_is_named_by_it_and_never_resumes() {
    let authority = Authority::new();
    let policy = policy(
        &authority.mutual(Some(NameKind::Dns)),
        &TicketKeys::new().unwrap(),
    );
    let far = Arc::new(authority.far_config_as("tv-1"));
    for _ in 0..2 {
        let mut pair = Pair::with(&policy, Arc::clone(&far), "push.test");
        pair.settle();
        let expected = Secured {
            is_resumed: false,
            bearer: Some("tv-1".into()),
        };
        assert_eq!(pair.secured, Some(expected));
        assert_eq!(pair.far.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_certificate_that_is_required_must_come_from_our_authority() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let required = policy(&authority.mutual(None), &keys);
    let none = Pair::new(&required, authority.far_config());
    let mut stranger = Authority::new();
    stranger.root = authority.root.clone();
    let foreign = Pair::new(&required, stranger.far_config_as("tv-1"));
    for mut pair in [none, foreign] {
        pair.settle();
        assert_eq!(pair.failure, Some(TlsFailure::Certificate));
        assert_eq!(pair.secured, None);
    }
    let optional = Tls {
        client_certificates: CertificateDemand::Optional,
        ..authority.mutual(Some(NameKind::Dns))
    };
    let optional = policy(&optional, &keys);
    let mut none = Pair::new(&optional, authority.far_config());
    none.settle();
    assert_eq!(none.secured.unwrap().bearer, None);
    let mut foreign = Pair::new(&optional, stranger.far_config_as("tv-1"));
    foreign.settle();
    assert_eq!(foreign.failure, Some(TlsFailure::Certificate));
}

#[test]
fn the_certificate_that_fits_is_shown() {
    let authority = Authority::new();
    let (ecdsa, rsa) = (
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
    );
    let tls = Tls {
        pairs: vec![
            authority.pair("push.test", &ecdsa),
            authority.pair("other.test", &rsa),
        ],
        ..Tls::default()
    };
    let policy = policy(&tls, &TicketKeys::new().unwrap());
    for name in ["push.test", "other.test"] {
        let mut pair = Pair::with(&policy, Arc::new(authority.far_config()), name);
        pair.settle();
        // The far end compares the name itself.
        pair.echo(name.as_bytes());
    }
    let mut unknown = Pair::with(&policy, Arc::new(authority.far_config()), "no.test");
    unknown.settle();
    assert_eq!(unknown.failure, Some(TlsFailure::Alert), "it refuses ours");
}

#[test]
fn what_cannot_be_agreed_on_ends_with_its_cause_and_an_alert() {
    let authority = Authority::new();
    let keys = TicketKeys::new().unwrap();
    let new_only = Tls {
        version_min: TlsVersion::V1_3,
        ..authority.tls()
    };
    let old = far_builder(&[&rustls::version::TLS12])
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let mut http2 = authority.far_config();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let strange = far_builder(rustls::ALL_VERSIONS)
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    for (tls, far, expected) in [
        (new_only, old, TlsFailure::Incompatible),
        (authority.tls(), http2, TlsFailure::Protocol),
        (authority.tls(), strange, TlsFailure::Alert),
    ] {
        let mut pair = Pair::new(&policy(&tls, &keys), far);
        pair.settle();
        assert_eq!(pair.failure, Some(expected));
        assert_eq!(pair.near.seal(b"x"), 0, "nothing is sealed after it");
        let told = pair.far.process_new_packets();
        assert!(told.is_err(), "the far end knows: {expected:?}");
    }
}

#[test]
fn garbage_never_gets_beyond_its_first_record() {
    let authority = Authority::new();
    let policy = policy(&authority.tls(), &TicketKeys::new().unwrap());
    for garbage in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16GET / HTTP/1.1\r\n\r\n",
        b"\x17\x03\x03\x00\x01x",
        &[0x16; 20_000],
    ] {
        let mut pair = Pair::new(&policy, authority.far_config());
        pair.feed(garbage);
        assert_eq!(pair.failure, Some(TlsFailure::Misbehaved), "{garbage:?}");
    }
}

#[test]
fn a_pair_that_does_not_match_is_named() {
    let authority = Authority::new();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut pair = authority.pair("push.test", &one);
    pair.private_key_file = authority.pair("other.test", &other).private_key_file;
    let mut nothing = authority.pair("third.test", &one);
    std::fs::write(&nothing.certificate_file, "nothing").unwrap();
    let mut gone = authority.pair("fourth.test", &one);
    gone.private_key_file = "/nowhere/key".into();
    std::fs::write(&mut nothing.private_key_file, "nothing").unwrap();
    let config = Config {
        devices_tls: Tls {
            pairs: vec![pair, nothing, gone],
            ..Tls::default()
        },
        ..Config::default()
    };
    let errors = TlsPolicies::load(&config, &TicketKeys::new().unwrap()).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|e| e.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "devices_tls.pairs[0].private_key_file",
            "devices_tls.pairs[1].certificate_file",
            "devices_tls.pairs[2].private_key_file",
        ]
    );
}
