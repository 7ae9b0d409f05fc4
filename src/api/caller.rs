//! Who calls: a handler that takes one of these is entered by nobody else.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::api::ControlPlane;
use crate::api::failure::Failure;
use crate::config::section::ApiRole;
use crate::protocol::auth::api_key::Shown;

/// A back end whose key has the role `read`.
#[derive(Debug)]
pub(crate) struct Reader;

/// A back end whose key has the role `send`: its name, which devices are told.
#[derive(Debug)]
pub(crate) struct Sender(pub(crate) Arc<str>);

/// A back end, or an operator, whose key has the role `admin`: its name, for the log.
#[derive(Debug)]
pub(crate) struct Admin(pub(crate) Arc<str>);

impl FromRequestParts<Arc<ControlPlane>> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<ControlPlane>,
    ) -> Result<Self, Failure> {
        authorize(parts, control, ApiRole::Read).map(|_| Self)
    }
}

impl FromRequestParts<Arc<ControlPlane>> for Sender {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<ControlPlane>,
    ) -> Result<Self, Failure> {
        authorize(parts, control, ApiRole::Send).map(Self)
    }
}

impl FromRequestParts<Arc<ControlPlane>> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<ControlPlane>,
    ) -> Result<Self, Failure> {
        authorize(parts, control, ApiRole::Admin).map(Self)
    }
}

fn authorize(parts: &Parts, control: &ControlPlane, role: ApiRole) -> Result<Arc<str>, Failure> {
    let settings = control.node.settings.load();
    let shown = Shown::of(parts);
    Ok(Arc::clone(settings.api_keys.authorize(shown, role)?))
}
