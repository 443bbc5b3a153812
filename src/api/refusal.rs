//! The one table from "why not" to a status, for gRPC and HTTP alike (OTLP 1.11 "Failures", RFC 9110).

use std::marker::PhantomData;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::Code;

use crate::ingest::ExportError;
use crate::limits::ERROR_MESSAGE_BYTES_MAX;
use crate::otlp::Undecodable;
use crate::query::QueryError;

use super::access::Denied;
use super::params::BadParameter;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) status: StatusCode,
    /// Only where a retry helps: clients drop when it is longer than they wait.
    pub(super) retry_after_secs: Option<u64>,
    /// At most 1 KiB: longer ones break the header limits of real clients.
    pub(super) message: String,
}

/// How a door writes why there is no answer.
pub(super) trait SaysWhy {
    fn say(status: StatusCode, why: String) -> Response;
}

/// Why a question of a door has no answer.
#[derive(Debug)]
pub(super) struct Failure<Door>(StatusCode, String, PhantomData<Door>);

impl<Door> Failure<Door> {
    pub(super) fn new(status: StatusCode, why: String) -> Self {
        Self(status, why, PhantomData)
    }
}

impl<Door> From<BadParameter> for Failure<Door> {
    fn from(bad: BadParameter) -> Self {
        Self::new(StatusCode::BAD_REQUEST, bad.0)
    }
}

impl<Door> From<QueryError> for Failure<Door> {
    fn from(error: QueryError) -> Self {
        Self::new(query_status(&error), error.to_string())
    }
}

impl<Door: SaysWhy> IntoResponse for Failure<Door> {
    fn into_response(self) -> Response {
        Door::say(self.0, self.1)
    }
}

/// HTTP status of a question without an answer, behind every door.
pub(super) fn query_status(error: &QueryError) -> StatusCode {
    query_codes(error).1
}

fn query_codes(error: &QueryError) -> (Code, StatusCode) {
    match error {
        QueryError::Starting | QueryError::TooLong { .. } | QueryError::NoTurn { .. } | QueryError::Abandoned => {
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
        QueryError::UnknownService { .. } | QueryError::UnknownTrace { .. } | QueryError::NotPinned { .. } => {
            (Code::NotFound, StatusCode::NOT_FOUND)
        }
        QueryError::TooManyPins => (Code::FailedPrecondition, StatusCode::CONFLICT),
        QueryError::Quantile(_)
        | QueryError::EmptyWindow { .. }
        | QueryError::BadStep { .. }
        | QueryError::NoFilterWithPeel
        | QueryError::TooManyGroups { .. }
        | QueryError::TooManyPoints { .. }
        | QueryError::TooMuchCounted { .. }
        | QueryError::TooManyTraces { .. }
        | QueryError::LongNote { .. } => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        QueryError::Store(_) | QueryError::Failed => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// What can be wrong with a body before it is decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request is larger than {limit} bytes; send smaller batches or raise --body-bytes-max")]
    TooLarge { limit: usize },
    #[error("the content coding {coding:?} is not supported; use gzip, zstd or none")]
    UnsupportedCoding { coding: String },
    #[error("the body does not inflate as {coding}: {why}")]
    Inflate { coding: &'static str, why: String },
    #[error("the body ended early or stalled")]
    Incomplete,
    #[error("{0}")]
    Framing(&'static str),
    #[error("the value of grpc-timeout is not one to eight digits and a unit of HMSmun")]
    BadTimeout,
    #[error("the question has more than {limit} bytes; ask a shorter one")]
    LongQuestion { limit: usize },
    #[error("the message cannot be decoded: {0}")]
    NoMessage(#[from] prost::DecodeError),
    #[error("the gRPC message is shorter than its length prefix says")]
    ShortMessage,
    #[error(transparent)]
    Refused(#[from] ExportError),
}

impl Refusal {
    fn new(code: Code, status: StatusCode, message: &impl ToString) -> Self {
        let mut message = message.to_string();
        message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
        Self { code, status, retry_after_secs: None, message }
    }

    fn retry_after(self, secs: u64) -> Self {
        Self { retry_after_secs: Some(secs), ..self }
    }

    /// `jitter` spreads the clients over 1 to 3 s.
    pub(super) fn of_export(error: &ExportError, jitter: u64) -> Self {
        let unavailable = |secs| Self::new(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, error).retry_after(secs);
        match error {
            ExportError::Undecodable(Undecodable::TooManyElements { .. } | Undecodable::NeverFits { .. }) => {
                Self::too_large(error)
            }
            ExportError::Undecodable(_) | ExportError::AllRejected { .. } => Self::invalid(error),
            ExportError::Overloaded { .. } => unavailable(1 + jitter % 3),
            ExportError::Starting | ExportError::Stopping | ExportError::Late => unavailable(1),
            ExportError::DiskFull | ExportError::ReadOnly => unavailable(3),
        }
    }

    pub(super) fn of_body(error: &BodyError, jitter: u64) -> Self {
        match error {
            BodyError::TooLarge { .. } | BodyError::LongQuestion { .. } => Self::too_large(error),
            BodyError::UnsupportedCoding { .. } => {
                Self::new(Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE, error)
            }
            BodyError::Inflate { .. } | BodyError::NoMessage(_) | BodyError::ShortMessage | BodyError::BadTimeout => {
                Self::invalid(error)
            }
            BodyError::Incomplete => Self::new(Code::InvalidArgument, StatusCode::REQUEST_TIMEOUT, error),
            BodyError::Framing(_) => Self::new(Code::Internal, StatusCode::BAD_REQUEST, error),
            BodyError::Refused(error) => Self::of_export(error, jitter),
        }
    }

    pub(super) fn of_query(error: &QueryError) -> Self {
        let (code, status) = query_codes(error);
        Self::new(code, status, error)
    }

    /// The client's own deadline has passed.
    pub(super) fn late() -> Self {
        let message = "the deadline of the call (grpc-timeout) has passed before the answer was complete";
        Self::with_status(Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT, message)
    }

    pub(super) fn of_denied(denied: Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Unknown | Denied::Expired => {
                Self::new(Code::Unauthenticated, StatusCode::UNAUTHORIZED, &denied)
            }
            Denied::WrongScope { .. } => Self::new(Code::PermissionDenied, StatusCode::FORBIDDEN, &denied),
        }
    }

    pub(super) fn foreign_origin() -> Self {
        let message = "pages of this origin may not send spans here (--cors-origins)";
        Self::with_status(Code::PermissionDenied, StatusCode::FORBIDDEN, message)
    }

    pub(super) fn foreign_page() -> Self {
        let message =
            "a page of another server may not change anything here; use the command line or this server's own page";
        Self::with_status(Code::PermissionDenied, StatusCode::FORBIDDEN, message)
    }

    pub(super) fn panicked() -> Self {
        Self::with_status(
            Code::Internal,
            StatusCode::INTERNAL_SERVER_ERROR,
            "an error of the server's own; see its log",
        )
    }

    /// Gives an HTTP answer the status and the headers of this refusal.
    pub(super) fn answer(&self, mut response: Response) -> Response {
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_after_secs {
            let _none = headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.code == Code::Unimplemented {
            let _none = headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, deflate"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let _none = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            let _none = headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    pub(super) fn invalid(error: &impl ToString) -> Self {
        Self::new(Code::InvalidArgument, StatusCode::BAD_REQUEST, error)
    }

    fn too_large(error: &impl ToString) -> Self {
        Self::new(Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn with_status(code: Code, status: StatusCode, message: &str) -> Self {
        Self::new(code, status, &message)
    }
}
