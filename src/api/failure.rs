//! How a call of the control plane fails: in the words of the error table, whatever went wrong.

use std::borrow::Cow;

use axum::extract::Request;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_ENCODING};

use crate::protocol::auth::api_key::ApiAuthError;
use crate::wire::answer::{self, REQUEST_ID};
use crate::wire::error::ErrorCode;

/// A call that was refused, and the cause for people. [`write_out`] makes the answer of it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) cause: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            cause: cause.into(),
        }
    }
}

impl IntoResponse for Failure {
    /// A note for [`write_out`]: only there the request's id is known.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ApiAuthError> for Failure {
    fn from(error: ApiAuthError) -> Self {
        Self::new(error.code(), error.cause())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

/// Sends bodies back that no call can read, and writes out what failed, with the request's id.
pub(crate) async fn write_out(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).cloned();
    let mut response = if request.headers().contains_key(CONTENT_ENCODING) {
        let cause = "a content encoding is not taken; send the body as it is";
        Failure::new(ErrorCode::UnsupportedMediaType, cause).into_response()
    } else {
        next.run(request).await
    };
    let Some(failure) = response.extensions_mut().remove::<Failure>() else {
        return response;
    };
    let id = id.as_ref().and_then(|id| id.to_str().ok());
    let mut written = answer::error(failure.code, &failure.cause, id.unwrap_or_default());
    if let Some(methods) = response.headers_mut().remove(ALLOW) {
        written.headers_mut().insert(ALLOW, methods);
    }
    written.map(axum::body::Body::from)
}

/// The answer to a path that no call has.
pub(crate) async fn unknown_route() -> Failure {
    Failure::new(
        ErrorCode::UnknownRoute,
        "no such call; GET /openapi.json lists them",
    )
}

/// The answer to a method that a call does not have.
pub(crate) async fn method_not_allowed() -> Failure {
    Failure::new(
        ErrorCode::MethodNotAllowed,
        "the call has other methods: see the Allow header",
    )
}

/// The answer of a call that panicked.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Failure::new(ErrorCode::Internal, "the server failed; its log says why").into_response()
}
