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

use super::Doors;
use super::body::{self, Coding};
use super::otlp_grpc::{partial_success, status};
use super::refusal::{BodyError, Refusal};

const PATH: &str = "/v1/traces";

pub(super) fn router() -> Router<Doors> {
    Router::new().route(PATH, post(export).fallback(wrong_method)).fallback(wrong_path)
}

async fn export(State(doors): State<Doors>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(encoding) = media_type(&parts.headers) else {
        let message = "send application/x-protobuf or application/json";
        let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        return failure(&refusal, Encoding::Json);
    };
    let jitter = doors.query.now().0;
    match receive(&doors, &parts.headers, body).await {
        Ok((bytes, _permit)) => match doors.ingest.export(bytes, encoding).await {
            Ok(exported) => success(exported, encoding),
            Err(error) => failure(&Refusal::of_export(&error, jitter), encoding),
        },
        Err(error) => failure(&Refusal::of_body(&error, jitter), encoding),
    }
}

/// The body, inflated, with the permit that covers it.
pub(super) async fn receive(
    doors: &Doors,
    headers: &HeaderMap,
    body: axum::body::Body,
) -> Result<(Vec<u8>, crate::ingest::Permit), BodyError> {
    let limit = doors.body_bytes_max;
    let coding = headers.get(header::CONTENT_ENCODING).map_or(Ok(Coding::Identity), |v| Coding::parse(v.as_bytes()))?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let (bytes, mut permit) = body::read(body, declared, limit, doors.ingest.budget()).await?;
    let bytes = body::inflate(bytes, coding, limit, doors.ingest.budget(), &mut permit).await?;
    Ok((bytes, permit))
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
    let body = match (is_json(encoding), partial_success(exported)) {
        (false, partial_success) => ExportTraceServiceResponse { partial_success }.encode_to_vec(),
        (true, None) => b"{}".to_vec(),
        (true, Some(partial)) => {
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
fn failure(refusal: &Refusal, encoding: Encoding) -> Response {
    let body = if is_json(encoding) {
        let code = i32::from(refusal.code);
        serde_json::json!({ "code": code, "message": refusal.message }).to_string().into_bytes()
    } else {
        status(refusal).details().to_vec()
    };
    refusal.answer(([(header::CONTENT_TYPE, content_type(encoding))], body).into_response())
}

fn is_json(encoding: Encoding) -> bool {
    match encoding {
        Encoding::Json | Encoding::ZipkinJson => true,
        Encoding::Protobuf | Encoding::ZipkinProtobuf => false,
    }
}

fn content_type(encoding: Encoding) -> &'static str {
    if is_json(encoding) { "application/json" } else { "application/x-protobuf" }
}

async fn wrong_method(headers: HeaderMap) -> Response {
    let message = "use POST";
    let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::METHOD_NOT_ALLOWED, message);
    let mut response = failure(&refusal, media_type(&headers).unwrap_or(Encoding::Json));
    let _none = response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn wrong_path(headers: HeaderMap) -> Response {
    let refusal = Refusal::with_status(Code::NotFound, StatusCode::NOT_FOUND, "traces are sent to POST /v1/traces");
    failure(&refusal, media_type(&headers).unwrap_or(Encoding::Json))
}
