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
use super::super::grpc::status;
use super::super::refusal::{BodyError, Refusal};
use super::{Sender, TRACES, partial_success};

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
    match doors.receive_and_export(request, encoding).await {
        Ok(exported) => success(exported, encoding),
        Err(error) => failure(&Refusal::of_body(&error, jitter), encoding),
    }
}

impl Doors {
    /// Reads the body of an HTTP request and stores what it holds.
    pub(in crate::api) async fn receive_and_export(
        &self,
        request: Request,
        encoding: Encoding,
    ) -> Result<Exported, BodyError> {
        let sender = Sender::of(&request);
        let (parts, body) = request.into_parts();
        let received = body::receive(self, &parts.headers, body).await?;
        Ok(self.export(received, encoding, &sender).await?)
    }
}

/// Parameters and letter case do not matter (RFC 9110 8.3.1); bytes that are no text are no known type.
pub(in crate::api) fn media_type(headers: &HeaderMap) -> Option<Encoding> {
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
pub(super) fn failure(refusal: &Refusal, encoding: Encoding) -> Response {
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
