//! A device in a page, for the first minute: the client of `clients/js` and its example, with how this node is reached in it.
//! Served in dev mode only, where a device needs no token.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::Neighbours;
use crate::config::Config;

const PAGE: &str = include_str!("../../clients/js/example.html");
const CLIENT: &str = include_str!("../../clients/js/tautline.js");
/// Where the page says how a node is reached that uses the defaults.
const DEFAULT_NODE: &str = r#"{ devices: "ws:7400", api: "http:7401" }"#;

/// The page's routes, to be merged into those of ops.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(
    config: &Config,
    neighbours: Neighbours,
) -> Router<S> {
    let (devices, api) = (neighbours.devices.port(), neighbours.api.port());
    let ws = format!("ws{}:{devices}", config.devices_tls.scheme_end());
    let http = format!("http{}:{api}", config.api_tls.scheme_end());
    let node = format!(r#"{{ devices: "{ws}", api: "{http}" }}"#);
    let page = PAGE.replace(DEFAULT_NODE, &node);
    Router::new()
        .route("/device", get(async move || (FRESH, Html(page.clone()))))
        .route("/tautline.js", get(async || (FRESH, SCRIPT, CLIENT)))
}

/// Ports change from one start to the next, and so may the client.
const FRESH: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];
const SCRIPT: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_in_one_place_how_its_node_is_reached() {
        assert_eq!(PAGE.matches(DEFAULT_NODE).count(), 1);
    }
}
