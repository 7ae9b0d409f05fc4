//! The target of a request: path, query, and what of it a log may show.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A request target in origin form, absolute form or `*` (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host and port of the absolute form; they take the place of the `Host` header.
    pub authority: Option<&'a str>,
    /// From the first slash to the question mark, as sent; `*` for the asterisk form.
    pub path: &'a str,
    /// Behind the question mark, as sent; empty without one.
    pub query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes a target apart; `None` when it has none of the forms.
    ///
    /// The authority form belongs to `CONNECT`, which no port of ours serves, so it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return None;
        }
        let (authority, rest) = match strip_scheme(text) {
            Some(absolute) => {
                let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
                (Some(&absolute[..end]), &absolute[end..])
            }
            None => (None, text),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_form = match authority {
            Some(host) => is_host(host) && !host.is_empty(),
            None => path.starts_with('/') || text == "*",
        };
        let path = if path.is_empty() { "/" } else { path };
        is_form.then_some(Self {
            authority,
            path,
            query,
        })
    }

    /// The first value of `name` in the query, percent-decoded. Bytes outside UTF-8 become U+FFFD, so that a bad value is
    /// refused and not taken for absent.
    ///
    /// A plus sign stays one, so that a base 64 token need not be escaped.
    pub fn query_pair(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = pairs(self.query).find(|(key, _)| decoded_is(key, name))?;
        Some(percent_decode_str(value).decode_utf8_lossy())
    }
}

/// The target, or any URL, with the values of `token` hidden: what a log may show.
pub fn redact(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    if !pairs(query).any(|(key, _)| is_secret(key)) {
        return Cow::Borrowed(target);
    }
    let shown: Vec<_> = query.split('&').map(redact_pair).collect();
    Cow::Owned(format!("{path}?{}", shown.join("&")))
}

/// Whether the text can stand in a `Host` header (RFC 9110, section 7.2): a name or address, and maybe a port.
pub(super) fn is_host(text: &str) -> bool {
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&b);
    text.bytes().all(is_host_byte)
}

fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let is_known = ["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    is_known.then_some(rest)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decoded_is(key: &str, name: &str) -> bool {
    percent_decode_str(key).eq(name.bytes())
}

/// Wider than what authentication reads, so that a misspelt token does not reach a log either.
fn is_secret(key: &str) -> bool {
    let key = percent_decode_str(key).decode_utf8_lossy();
    key.trim().eq_ignore_ascii_case("token")
}

fn redact_pair(pair: &str) -> Cow<'_, str> {
    match pair.split_once('=') {
        Some((key, _)) if is_secret(key) => Cow::Owned(format!("{key}=***")),
        _ => Cow::Borrowed(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_target_are_taken_apart() {
        let table = [
            ("/", None, "/", ""),
            ("/ws?a=1&b=2", None, "/ws", "a=1&b=2"),
            ("/ws?", None, "/ws", ""),
            ("/a?b?c", None, "/a", "b?c"),
            ("*", None, "*", ""),
            ("/go?to=http://x/y", None, "/go", "to=http://x/y"),
            (
                "http://push.example:7400/ws?x",
                Some("push.example:7400"),
                "/ws",
                "x",
            ),
            ("WS://[::1]:80", Some("[::1]:80"), "/", ""),
            ("wss://h?q", Some("h"), "/", "q"),
        ];
        for (text, authority, path, query) in table {
            let expected = Target {
                authority,
                path,
                query,
            };
            assert_eq!(Target::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        for text in [
            "",
            "ws",
            "host:443",
            "ftp://h/",
            "http:///ws",
            "http://u@h/",
            "/a#b",
            "/é",
            "?x",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_pair_is_decoded_once() {
        let target =
            Target::parse("/ws?device%5Fid=tv%2D1&token=a+b%2520&flag&bad=%ff&token=2").unwrap();
        assert_eq!(target.query_pair("device_id").as_deref(), Some("tv-1"));
        assert_eq!(target.query_pair("token").as_deref(), Some("a+b%20"));
        assert_eq!(target.query_pair("flag").as_deref(), Some(""));
        assert_eq!(target.query_pair("bad").as_deref(), Some("\u{fffd}"));
        assert_eq!(target.query_pair("absent"), None);
    }

    #[test]
    fn a_log_never_shows_a_token() {
        let table = [
            (
                "/ws?device_id=tv-1&token=secret&x=1",
                "/ws?device_id=tv-1&token=***&x=1",
            ),
            ("/ws?token=secret&Token=secret", "/ws?token=***&Token=***"),
            ("/ws?%74oken=secret", "/ws?%74oken=***"),
            ("/ws?token=sec=ret?", "/ws?token=***"),
            ("http://h/?token=secret", "http://h/?token=***"),
        ];
        for (target, shown) in table {
            assert_eq!(redact(target), shown);
        }
    }

    #[test]
    fn a_target_without_a_token_is_shown_as_it_is() {
        for target in ["/ws", "/ws?", "/ws?tokens=1&token_id=2", "/token=1"] {
            assert!(matches!(redact(target), Cow::Borrowed(shown) if shown == target));
        }
    }
}
