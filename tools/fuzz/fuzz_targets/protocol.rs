//! The whole protocol of a device's connection, from the first byte of its request to the last frame: any bytes, cut
//! anywhere, lead to the same answers. The first byte chooses the cut.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tautline::base::close::CloseReason;
use tautline::base::time::Now;
use tautline::config::Config;
use tautline::head::request;
use tautline::protocol::auth::api_key::ApiKeys;
use tautline::protocol::auth::authenticator::Authenticator;
use tautline::protocol::auth::origin::OriginPolicy;
use tautline::protocol::device::{Device, Verdict};
use tautline::protocol::intake::IntakeLimits;
use tautline::protocol::upgrade::{Door, Gate, Step, Upgrade};
use tautline::ws::decoder::Decoder;
use tautline::ws::frame;

static AUTHENTICATOR: LazyLock<Authenticator> =
    LazyLock::new(|| Authenticator::new(&Config::default().auth).expect("dev mode needs no key"));
static API_KEYS: LazyLock<ApiKeys> =
    LazyLock::new(|| ApiKeys::new(&Config::default().api).expect("no keys are no files"));
static ORIGINS: LazyLock<OriginPolicy> =
    LazyLock::new(|| OriginPolicy::new(&Config::default().auth).expect("dev mode has no list"));

/// Small enough that short inputs reach every limit.
const FRAMES: frame::Limits = frame::Limits {
    message_bytes_max: 256,
    fragments_max: 8,
};

/// Few enough pings that a short input may have too many.
const INTAKE: IntakeLimits = IntakeLimits {
    frames: 0,
    bytes: 0,
    pings: 20,
};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else {
        return;
    };
    assert_eq!(
        live(bytes, bytes.len()),
        live(bytes, usize::from(cut % 64) + 1)
    );
});

/// What a connection says to these bytes, and how it ends if it does.
fn live(bytes: &[u8], size: usize) -> (Vec<u8>, Option<CloseReason>) {
    let now = Now {
        us: 1,
        wall_ms: 1_700_000_000_000,
    };
    let mut upgrade = Upgrade::new(Door::Devices, [127, 0, 0, 1].into(), None, now);
    let mut line: Option<(Decoder, Device)> = None;
    let mut said = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        let mut piece = piece.to_vec();
        let mut frames = 0;
        if line.is_none() {
            match upgrade.handle_input(&piece, &gate(), now) {
                Step::Incomplete => continue,
                Step::Refused(_, response) => {
                    return ([said, response].concat(), Some(CloseReason::Refused));
                }
                // No stream is opened at the devices' door.
                Step::Greeted(_) | Step::Unauthorized(..) | Step::Streaming(..) => {
                    return (said, None);
                }
                Step::Authenticated(switch, dialect, authenticated) => {
                    said.extend(switch.response);
                    frames = switch.consumed;
                    let device = Device::new(
                        authenticated.identity,
                        1,
                        dialect,
                        CloseReason::MaxAge,
                        now,
                    );
                    line = Some((Decoder::default(), device));
                }
            }
        }
        let Some((decoder, device)) = &mut line else {
            continue;
        };
        if let Some(reason) = hear(decoder, device, &mut piece[frames..], now, &mut said) {
            return (said, Some(reason));
        }
    }
    (said, None)
}

fn hear(
    decoder: &mut Decoder,
    device: &mut Device,
    bytes: &mut [u8],
    now: Now,
    said: &mut Vec<u8>,
) -> Option<CloseReason> {
    let mut taken = 0;
    loop {
        let decoded = match decoder.decode(&mut bytes[taken..], &FRAMES, now.ms()) {
            Ok(decoded) => decoded,
            Err(violation) => return Some(violation.reason()),
        };
        let event = decoded.event?;
        taken += decoded.consumed;
        if let Verdict::Close(reason) = device.handle_event(&event, INTAKE, now, said) {
            return Some(reason);
        }
    }
}

fn gate() -> Gate<'static> {
    Gate {
        head: request::Limits {
            head_bytes_max: 512,
            target_bytes_max: 128,
        },
        authenticator: &AUTHENTICATOR,
        origins: &ORIGINS,
        cookie: Some("sid"),
        api_keys: &API_KEYS,
        is_echo: false,
        retry_after_s: 1,
    }
}
