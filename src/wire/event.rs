//! Connection events as JSON: the `data` of server-sent events.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What happened to a line: the data of `opened`, `renewed` and `closed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventBody<'a> {
    /// The device at the line's far end.
    pub device_id: Cow<'a, str>,
    /// The account that owns the device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<Cow<'a, str>>,
    /// The line's public name.
    pub connection_id: String,
    /// The node that holds, or held, the line.
    pub node_id: Cow<'a, str>,
    /// Which line of the device it is: 16 digits that sort; the greatest holds the device.
    pub generation: String,
    /// When it happened, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// With `closed`: the word of the close code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cow<'a, str>>,
    /// With `closed`: the close code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<u16>,
}

/// The data of `missed`: events that the reader was too slow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissedBody {
    /// How many; null when the node cannot know.
    pub count: Option<u64>,
}
