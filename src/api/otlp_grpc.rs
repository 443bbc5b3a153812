//! `opentelemetry.proto.collector.trace.v1.TraceService/Export`, unary gRPC.
//!
//! The five bytes of framing are read here rather than by a gRPC server library: the size limit must answer
//! RESOURCE_EXHAUSTED, memory must be permitted before it is reserved, and undecodable bytes are the client's fault
//! (OTLP-17, OTLP-25; docs/adr/0004-own-unary-grpc.md).

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::ingest::{Encoding, Exported};

use super::Doors;
use super::body::{self, Coding};
use super::refusal::{BodyError, Refusal};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PREFIX_BYTES: usize = 5;
/// What may be sent compressed.
const ACCEPTED: &str = "identity,gzip,zstd";

pub(super) fn router() -> Router<Doors> {
    Router::new().route(EXPORT, post(export)).fallback(unimplemented)
}

async fn export(State(doors): State<Doors>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !is_grpc(&parts.headers) {
        return plain_415();
    }
    let jitter = doors.query.now().0;
    let refusal = match receive(&doors, &parts.headers, body).await {
        Ok((message, _permit)) => match doors.ingest.export(message, Encoding::Protobuf).await {
            Ok(exported) => return success(exported),
            Err(error) => Refusal::of_export(&error, jitter),
        },
        Err(error) => Refusal::of_body(&error, jitter),
    };
    failure(&refusal)
}

/// The one message of a unary call, inflated.
async fn receive(
    doors: &Doors,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<u8>, crate::ingest::Permit), BodyError> {
    let limit = doors.body_bytes_max;
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    let coding = encoding.map(Coding::parse).transpose()?;
    if coding == Some(Coding::Deflate) {
        return Err(BodyError::UnsupportedCoding { coding: "deflate".to_owned() });
    }
    let (mut framed, mut permit) = body::read(body, None, limit + PREFIX_BYTES, doors.ingest.budget()).await?;
    let Some((prefix, message)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(BodyError::ShortMessage);
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if limit < length {
        return Err(BodyError::TooLarge { limit });
    }
    if message.len() < length {
        return Err(BodyError::ShortMessage);
    }
    drop(framed.drain(..PREFIX_BYTES));
    framed.truncate(length);
    let coding = match (flag, coding) {
        (0, _) => Coding::Identity,
        (1, Some(coding)) => coding,
        (1, None) => {
            return Err(BodyError::Framing("the message is marked as compressed, but there is no grpc-encoding"));
        }
        (_, _) => return Err(BodyError::Framing("the compressed flag of a gRPC message is 0 or 1")),
    };
    let message = body::inflate(framed, coding, limit, doors.ingest.budget(), &mut permit).await?;
    Ok((message, permit))
}

fn success(exported: Exported) -> Response {
    let partial_success = partial_success(exported);
    let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    let trailers =
        HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(bytes::Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let _none = response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Left unset when there is nothing to say (OTLP-20).
pub(super) fn partial_success(exported: Exported) -> Option<ExportTracePartialSuccess> {
    if exported.rejected_spans == 0 && exported.message.is_none() {
        return None;
    }
    Some(ExportTracePartialSuccess {
        rejected_spans: i64::try_from(exported.rejected_spans).unwrap_or(i64::MAX),
        error_message: exported.message.unwrap_or_default(),
    })
}

/// Trailers-Only: some clients read the status from the response headers alone (OTLP-29).
fn failure(refusal: &Refusal) -> Response {
    let mut response = status(refusal).into_http();
    if refusal.code == Code::Unimplemented {
        let _none = response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
    }
    response
}

/// With RetryInfo in both places where clients look for it (OTLP-31), or BadRequest.
pub(super) fn status(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::new();
    if refusal.code == Code::InvalidArgument {
        let _details = details.add_bad_request_violation("", refusal.message.clone());
    }
    let Some(secs) = refusal.retry_after_secs else {
        return Status::with_error_details(refusal.code, refusal.message.clone(), details);
    };
    let delay = std::time::Duration::from_secs(secs);
    let _details = details.set_retry_info(Some(delay));
    let mut status = Status::with_error_details(refusal.code, refusal.message.clone(), details);
    let retry_info: tonic_types::pb::RetryInfo = tonic_types::RetryInfo::new(Some(delay)).into();
    let value = tonic::metadata::MetadataValue::from_bytes(&retry_info.encode_to_vec());
    let _none = status.metadata_mut().insert_bin("google.rpc.retryinfo-bin", value);
    status
}

async fn unimplemented(method: Method, headers: HeaderMap, uri: axum::http::Uri) -> Response {
    if method != Method::POST || !is_grpc(&headers) {
        return plain_415();
    }
    let message = format!("{} is not served here; only {EXPORT} is", uri.path());
    failure(&Refusal::with_status(Code::Unimplemented, StatusCode::NOT_FOUND, &message))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with(b"application/grpc"))
}

fn plain_415() -> Response {
    super::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC; OTLP over HTTP is on port 4318\n")
}
