//! The header fields of a request, whichever parser has read them: hyper's, or the one in front of it.

use http::HeaderMap;

use crate::head::request::Request;

/// Header fields by name.
pub trait Fields {
    /// The values of a field, in order. Its name is given in lower case.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;

    /// The first value of a field, if it is text.
    fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).next().and_then(visible)
    }

    /// Whether there is such a field.
    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let values = self.get_all(name).into_iter();
        values.map(|value| value.as_bytes())
    }
}

impl Fields for Request<'_> {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.header_values(name)
    }
}

/// The value as text: visible ASCII characters, spaces and tabs, and nothing else.
pub fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |b: &u8| matches!(b, b' '..=b'~' | b'\t');
    let text = value.iter().all(is_visible);
    text.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::head::request::Limits;

    const LIMITS: Limits = Limits {
        head_bytes_max: 8_192,
        target_bytes_max: 2_048,
    };

    #[test]
    fn both_parsers_have_the_same_to_say() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nTTL: 1\r\nttl: 2\r\nX-Tab: a\tb\r\nX-Name: \xc3\xa9\r\nX-Empty:\r\n\r\n";
        let request = Request::parse(head, &LIMITS).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        for name in ["host", "ttl", "x-tab", "x-name", "x-empty", "absent"] {
            assert!(
                request.values(name).eq(Fields::values(&map, name)),
                "{name}"
            );
            assert_eq!(request.text(name), map.text(name), "{name}");
            assert_eq!(request.has(name), map.has(name), "{name}");
            let first = map.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(map.text(name), first, "{name}");
        }
    }
}
