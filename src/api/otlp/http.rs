//! `POST /v1/traces`: OTLP over HTTP, protobuf and JSON, answered in the encoding of the request.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::Code;

use crate::ingest::{Encoding, Exported};

use super::super::Doors;
use super::super::body;
use super::super::refusal::{BodyError, Refusal};
use super::{Sender, TRACES, partial_success, status};

pub(super) fn router() -> Router<Doors> {
    Router::new().route(TRACES, post(export).fallback(wrong_method))
}

async fn export(State(doors): State<Doors>, request: Request) -> Response {
    let Some(encoding) = media_type(request.headers()) else {
        let message = "send application/x-protobuf or application/json";
        let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        return failure(&refusal, Encoding::Json);
    };
    let jitter = doors.query.now().0;
    match answer(&doors, request, encoding).await {
        Ok(exported) => success(exported, encoding),
        Err(error) => failure(&Refusal::of_body(&error, jitter), encoding),
    }
}

async fn answer(doors: &Doors, request: Request, encoding: Encoding) -> Result<Exported, BodyError> {
    let sender = Sender::of(&request);
    let (parts, body) = request.into_parts();
    let (bytes, _permit) = body::receive(doors, &parts.headers, body).await?;
    Ok(doors.export(bytes, encoding, &sender).await?)
}

/// Parameters and letter case do not matter (RFC 9110 8.3.1); bytes that are no text are no known type.
pub(super) fn media_type(headers: &HeaderMap) -> Option<Encoding> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match essence.to_ascii_lowercase().as_slice() {
        b"application/x-protobuf" | b"application/protobuf" => Some(Encoding::Protobuf),
        b"application/json" => Some(Encoding::Json),
        _ => None,
    }
}

fn success(exported: Exported, encoding: Encoding) -> Response {
    let body = match (encoding, partial_success(exported)) {
        (Encoding::Protobuf, partial_success) => ExportTraceServiceResponse { partial_success }.encode_to_vec(),
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(partial)) => {
            let mut fields = serde_json::Map::new();
            if 0 < partial.rejected_spans {
                let _none = fields.insert("rejectedSpans".to_owned(), partial.rejected_spans.to_string().into());
            }
            let _none = fields.insert("errorMessage".to_owned(), partial.error_message.into());
            serde_json::json!({ "partialSuccess": fields }).to_string().into_bytes()
        }
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type(encoding))], body).into_response()
}

/// Every error body is a `google.rpc.Status` (OTLP-39).
pub(super) fn failure(refusal: &Refusal, encoding: Encoding) -> Response {
    let status = status(refusal);
    let body = match encoding {
        Encoding::Protobuf => status.details().to_vec(),
        Encoding::Json => {
            let code = i32::from(refusal.code);
            serde_json::json!({ "code": code, "message": refusal.message }).to_string().into_bytes()
        }
    };
    let mut response = (refusal.status, [(header::CONTENT_TYPE, content_type(encoding))], body).into_response();
    let headers = response.headers_mut();
    if let Some(secs) = refusal.retry_after_secs {
        let _none = headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if refusal.code == Code::Unimplemented {
        let _none = headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, deflate"));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        let _none = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refusal.status == StatusCode::REQUEST_TIMEOUT {
        let _none = headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    }
}

async fn wrong_method(headers: HeaderMap) -> Response {
    let message = "use POST";
    let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::METHOD_NOT_ALLOWED, message);
    let mut response = failure(&refusal, media_type(&headers).unwrap_or(Encoding::Json));
    let _none = response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
