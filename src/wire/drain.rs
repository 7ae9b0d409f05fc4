//! Bodies of the drain call: what a drain is to be like, how it would go, and how far it has come.

use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use crate::wire::api::decode_object;
use crate::wire::error::ErrorCode;

/// What a drain is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// From now to its end, in milliseconds. Unset, it is what `lines_per_second` takes, and without that `drain.deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How many lines are asked to leave in a second. Unset, they are spread over the time there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub lines_per_second: Option<u32>,
    /// Where devices should go, `ws://` or `wss://`: told with each go-away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub url: Option<String>,
    /// Only tells how such a drain would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl DrainRequest {
    /// Decodes the body of a request; without one, everything is as configured.
    ///
    /// # Errors
    /// `invalid_body` or `unknown_field`, with what is wrong and where.
    pub fn decode(body: &[u8]) -> Result<Self, (ErrorCode, String)> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let request: Self = decode_object(body)?;
        let fault = |cause: &str| Err((ErrorCode::InvalidBody, cause.to_owned()));
        if request.lines_per_second == Some(0) {
            return fault("lines_per_second is at least 1");
        }
        if !request.url.as_deref().is_none_or(is_line_address) {
            return fault("url is a ws:// or wss:// address without user and fragment");
        }
        Ok(request)
    }
}

/// Whether a device can be sent to an address.
pub fn is_line_address(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let is_plain = url.username().is_empty() && url.password().is_none();
    matches!(url.scheme(), "ws" | "wss")
        && url.has_host()
        && is_plain
        && url.fragment().is_none()
        && text.len() <= URL_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How a drain would go, if it began now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainForecast {
    /// Lines open now.
    pub lines: u64,
    /// How many of them would be asked to leave in a second.
    pub lines_per_second: u64,
    /// From its beginning until the last line was asked and had its grace, in milliseconds.
    pub duration_ms: u64,
    /// From its beginning until lines that are left are closed by force, in milliseconds.
    pub deadline_ms: u64,
    /// Whether every line would be asked and have its grace before that.
    pub fits: bool,
}

/// Where a node stands on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainStatus {
    /// The node.
    pub node_id: String,
    /// The step it has reached.
    pub state: DrainState,
    /// Lines open now.
    pub lines: u64,
    /// When the drain began, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_ms: Option<u64>,
    /// When lines that are left are closed by force, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline_ms: Option<u64>,
    /// How far lines have come, once they are asked to leave.
    #[serde(flatten)]
    pub progress: Option<DrainProgress>,
}

/// How far the lines of a node that drains have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainProgress {
    /// Lines open when the node began to ask them.
    pub lines_at_start: u64,
    /// How many are asked to leave in a second.
    pub lines_per_second: u64,
    /// Lines that were asked to go away.
    pub asked: u64,
    /// Lines that have gone, asked or not.
    pub gone: u64,
    /// Lines that did not go and were closed.
    pub forced: u64,
    /// When the last will have been asked and have had its grace, milliseconds since the Unix epoch.
    pub eta_ms: u64,
}

/// The steps of a drain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// No drain: the node takes lines.
    #[default]
    Serving,
    /// Not ready any more; load balancers are given time to notice.
    Unready,
    /// New connections are refused, and lines are asked to go away.
    Leaving,
    /// The deadline has passed; what is left is being closed.
    Forcing,
    /// No line is left.
    Drained,
}

/// The longest address that devices are told.
const URL_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_is_wrong_with_it() {
        let decode = |body: &str| DrainRequest::decode(body.as_bytes());
        assert_eq!(decode("").unwrap(), DrainRequest::default());
        let whole = decode(
            r#"{"deadline_ms":60000,"lines_per_second":500,"url":"wss://b.example/ws","dry_run":true}"#,
        );
        let whole = whole.unwrap();
        assert_eq!(
            (whole.deadline_ms, whole.lines_per_second),
            (Some(60_000), Some(500))
        );
        assert_eq!(whole.url.as_deref(), Some("wss://b.example/ws"));
        for (body, code) in [
            ("5", ErrorCode::InvalidBody),
            (r#"{"lines_per_second":0}"#, ErrorCode::InvalidBody),
            (r#"{"url":"https://b.example/"}"#, ErrorCode::InvalidBody),
            (r#"{"dry_run":1}"#, ErrorCode::InvalidBody),
            (r#"{"speed":1}"#, ErrorCode::UnknownField),
        ] {
            assert_eq!(decode(body).unwrap_err().0, code, "{body}");
        }
    }

    #[test]
    fn devices_are_sent_to_addresses_of_lines_only() {
        for good in [
            "ws://10.0.0.2:7400/ws",
            "wss://b.example/ws?pool=2",
            // A quote is no harm to JSON that is written by a serialiser.
            "ws://b.example/\"",
        ] {
            assert!(is_line_address(good), "{good}");
        }
        let long = format!("ws://b.example/{}", "x".repeat(URL_BYTES_MAX));
        for bad in [
            "b.example",
            "http://b.example/ws",
            "ws://",
            "ws://ann:secret@b.example/ws",
            "ws://b.example/ws#top",
            "ws://b.example/w s",
            &long,
        ] {
            assert!(!is_line_address(bad), "{bad}");
        }
    }
}
