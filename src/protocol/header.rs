//! The options of a message that come as headers: those of Web Push (RFC 8030), `Idempotency-Key` and `traceparent`.

use crate::protocol::field::{Fields, visible};
use crate::protocol::push::Refused;
use crate::wire::envelope::{SendRequest, check_collapse_key, check_idempotency_key};
use crate::wire::error::ErrorCode;

/// Reads the options of one message.
///
/// # Errors
/// `bad_request` for a header that makes no sense, or that says what the body says already.
pub(super) fn apply_headers(
    request: &mut SendRequest,
    headers: &impl Fields,
) -> Result<(), Refused> {
    check_hints(headers)?;
    if let Some(text) = single(headers, TTL)? {
        let seconds = text
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse());
        let Some(Ok(seconds)) = seconds else {
            return Err(bad(TTL, "is a number of seconds"));
        };
        let ttl_ms = u64::saturating_mul(seconds, 1_000);
        once(TTL, &mut request.ttl_ms, ttl_ms)?;
    }
    if let Some(key) = single(headers, TOPIC)? {
        check_collapse_key(key).map_err(|fault| bad(TOPIC, fault))?;
        once(TOPIC, &mut request.collapse_key, key.to_owned())?;
    }
    if let Some(key) = single(headers, IDEMPOTENCY_KEY)? {
        // The draft has it in quotes, and most senders leave them out.
        let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let key = quoted.unwrap_or(key);
        check_idempotency_key(key).map_err(|fault| bad(IDEMPOTENCY_KEY, fault))?;
        once(
            IDEMPOTENCY_KEY,
            &mut request.idempotency_key,
            key.to_owned(),
        )?;
    }
    Ok(())
}

/// Refuses what could only be meant for one message where there are many.
///
/// # Errors
/// `bad_request` with what to do instead.
pub(super) fn refuse_headers(headers: &impl Fields) -> Result<(), Refused> {
    check_hints(headers)?;
    let given = [TTL, TOPIC, IDEMPOTENCY_KEY]
        .into_iter()
        .find(|name| headers.has(name));
    match given {
        Some(name) => Err(bad(
            name,
            "is for one message; give it to each message of the batch as a field",
        )),
        None => Ok(()),
    }
}

/// Urgency and trace have no effect yet, but a wrong one is told before somebody relies on it.
fn check_hints(headers: &impl Fields) -> Result<(), Refused> {
    let urgency = single(headers, URGENCY)?;
    let is_known = |text: &str| URGENCIES.iter().any(|word| text.eq_ignore_ascii_case(word));
    if urgency.is_some_and(|text| !is_known(text)) {
        return Err(bad(URGENCY, "is very-low, low, normal or high"));
    }
    let trace = single(headers, TRACEPARENT)?;
    if trace.is_some_and(|text| !is_traceparent(text)) {
        return Err(bad(TRACEPARENT, "is not of the form of W3C Trace Context"));
    }
    Ok(())
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero; a later version may append fields.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(5, '-').collect();
    let [version, trace, parent, flags, rest @ ..] = &parts[..] else {
        return false;
    };
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|b| b != b'0');
    let is_known = *version == "00" && rest.is_empty();
    let is_later = *version != "00" && *version != "ff" && is_hex(version, 2);
    (is_known || is_later) && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)
}

/// The value of a header that may be there once.
fn single<'a>(headers: &'a impl Fields, name: &'static str) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.values(name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad(name, "is given twice"));
    }
    let text = visible(value).ok_or_else(|| bad(name, "is not of visible ASCII characters"))?;
    Ok(Some(text))
}

fn once<T>(name: &'static str, field: &mut Option<T>, value: T) -> Result<(), Refused> {
    if field.replace(value).is_some() {
        return Err(bad(name, "is given in the body as well"));
    }
    Ok(())
}

fn bad(name: &str, fault: &str) -> Refused {
    (ErrorCode::BadRequest, format!("{name}: {fault}").into())
}

const TTL: &str = "ttl";
const TOPIC: &str = "topic";
const URGENCY: &str = "urgency";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";
const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::protocol::push::send_request;

    fn request(pairs: &[(&str, &str)], body: &'static str) -> Result<SendRequest, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let refused = |(code, cause): Refused| format!("{} {cause}", code.word());
        send_request(&headers, None, &Bytes::from_static(body.as_bytes())).map_err(refused)
    }

    #[test]
    fn options_may_come_as_headers() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = request(
            &[
                ("TTL", "60"),
                ("Topic", "score"),
                ("Urgency", "Very-Low"),
                ("Idempotency-Key", "\"8e03978e\""),
                ("traceparent", trace),
            ],
            "hello",
        )
        .unwrap();
        assert_eq!(request.ttl_ms, Some(60_000));
        assert_eq!(request.collapse_key.as_deref(), Some("score"));
        assert_eq!(request.idempotency_key.as_deref(), Some("8e03978e"));
    }

    #[test]
    fn a_header_that_makes_no_sense_is_named() {
        let long = "x".repeat(256);
        for (name, value) in [
            ("TTL", ""),
            ("TTL", "-1"),
            ("TTL", "+1"),
            ("TTL", "1.5"),
            ("TTL", "99999999999999999999"),
            ("Topic", "a b"),
            ("Topic", ""),
            ("Urgency", "now"),
            ("Idempotency-Key", ""),
            ("Idempotency-Key", "\"\""),
            ("Idempotency-Key", "a b"),
            ("Idempotency-Key", &long),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            ),
            (
                "traceparent",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            ),
            (
                "traceparent",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            ),
            (
                "traceparent",
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            ),
        ] {
            let fault = request(&[(name, value)], "1").unwrap_err();
            let name = name.to_ascii_lowercase();
            assert!(
                fault.starts_with(&format!("bad_request {name}: ")),
                "{value}: {fault}"
            );
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(request(&[("traceparent", later)], "1").is_ok());
    }

    #[test]
    fn nothing_is_said_twice() {
        let twice = request(&[("TTL", "1"), ("TTL", "2")], "1").unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
        let json = ("content-type", "application/json");
        let body = r#"{"data":1,"ttl_ms":5,"collapse_key":"k","idempotency_key":"i"}"#;
        assert!(request(&[json], body).is_ok());
        for (name, value) in [("TTL", "1"), ("Topic", "k"), ("Idempotency-Key", "i")] {
            let both = request(&[json, (name, value)], body).unwrap_err();
            assert!(both.contains("as well"), "{both}");
        }
    }
}
