//! `POST /api/v2/spans`: Zipkin v2 over HTTP, a JSON list or a protobuf `ListOfSpans`. Success is 202 without a body,
//! also when some spans were dropped (the metrics count them); errors are plain text.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tonic::Code;

use crate::ingest::Encoding;

use super::Doors;
use super::otlp::media_type;
use super::refusal::Refusal;

const PATH: &str = "/api/v2/spans";

pub(super) fn router() -> Router<Doors> {
    Router::new().route(PATH, post(spans).fallback(wrong_method)).fallback(wrong_path)
}

async fn spans(State(doors): State<Doors>, request: Request) -> Response {
    let encoding = match media_type(request.headers()) {
        Some(Encoding::Json | Encoding::ZipkinJson) => Encoding::ZipkinJson,
        Some(Encoding::Protobuf | Encoding::ZipkinProtobuf) => Encoding::ZipkinProtobuf,
        None => {
            let message = "send application/json or application/x-protobuf";
            return failure(&fixed(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let jitter = doors.query.now().0;
    match doors.receive_and_export(request, encoding).await {
        Ok(_stored) => StatusCode::ACCEPTED.into_response(),
        Err(error) => failure(&Refusal::of_body(&error, jitter)),
    }
}

/// A refusal of the gate.
pub(super) fn refuse(_headers: &HeaderMap, refusal: &Refusal) -> Response {
    failure(refusal)
}

fn fixed(status: StatusCode, message: &str) -> Refusal {
    Refusal::with_status(Code::InvalidArgument, status, message)
}

fn failure(refusal: &Refusal) -> Response {
    refusal.answer(super::text(refusal.status, format!("{}\n", refusal.message)))
}

async fn wrong_method() -> Response {
    let mut response = failure(&fixed(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
    let _none = response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn wrong_path() -> Response {
    failure(&fixed(StatusCode::NOT_FOUND, "Zipkin v2 spans are sent to POST /api/v2/spans; v1 is not supported"))
}
