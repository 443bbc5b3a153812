//! `opentelemetry.proto.collector.trace.v1.TraceService/Export`, unary gRPC, and the health service.
//!
//! The five bytes of framing are read here rather than by a gRPC server library: the size limit must answer
//! RESOURCE_EXHAUSTED, memory must be permitted before it is reserved, and undecodable bytes are the client's fault
//! (OTLP-17, OTLP-25; docs/adr/0004-own-unary-grpc.md).

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::Code;

use crate::ingest::{Encoding, ExportError, Exported, Permit};

use super::super::Doors;
use super::super::body::{self, Announced, Coding};
use super::super::inflate::Compression;
use super::super::refusal::{BodyError, Refusal};
use super::{Sender, http, is_grpc, partial_success, status};

pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// What may be sent compressed.
const ACCEPTED: &str = "identity,gzip,zstd";

pub(super) fn router() -> Router<Doors> {
    Router::new().route(EXPORT, post(export).fallback(not_grpc)).route(HEALTH, post(health).fallback(not_grpc))
}

async fn export(State(doors): State<Doors>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc().await;
    }
    let jitter = doors.query.now().0;
    match answer(&doors, request).await {
        Ok(exported) => success(exported),
        Err(error) => failure(&Refusal::of_body(&error, jitter)),
    }
}

/// Within the client's own deadline, if it names one: nobody listens after that (OTLP-34).
async fn answer(doors: &Doors, request: Request) -> Result<Exported, BodyError> {
    let sender = Sender::of(&request);
    let (parts, body) = request.into_parts();
    let deadline = parts.headers.get("grpc-timeout").map(|value| timeout(value.as_bytes())).transpose()?;
    let work = async {
        let received = receive(doors, &parts.headers, body).await?;
        Ok(doors.export(received, Encoding::Protobuf, &sender).await?)
    };
    match deadline {
        None => work.await,
        Some(deadline) => {
            tokio::time::timeout(deadline, work).await.unwrap_or(Err(BodyError::Refused(ExportError::Late)))
        }
    }
}

/// Up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout(text: &[u8]) -> Result<Duration, BodyError> {
    let bad = BodyError::BadTimeout;
    let Some((unit, digits)) = text.split_last() else { return Err(bad) };
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3_600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(bad),
    }
}

/// The one message of a unary call, inflated.
async fn receive(doors: &Doors, headers: &HeaderMap, mut body: Body) -> Result<(Vec<u8>, Permit), BodyError> {
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    let coding = encoding.map(Coding::parse).transpose()?;
    if coding == Some(Coding::Compressed(Compression::Deflate)) {
        return Err(BodyError::UnsupportedCoding { coding: "deflate".to_owned() });
    }
    let (mut framed, mut permit) = body::read(doors, &mut body, Announced::InFront).await?;
    let (flag, length) = body::prefix(&framed).ok_or(BodyError::ShortMessage)?;
    let end = body::PREFIX_BYTES + length;
    if framed.len() < end {
        return Err(BodyError::ShortMessage);
    }
    let coding = match (flag, coding) {
        (0, _) => Coding::Identity,
        (1, Some(coding)) => coding,
        (1, None) => {
            return Err(BodyError::Framing("the message is marked as compressed, but there is no grpc-encoding"));
        }
        (_, _) => return Err(BodyError::Framing("the compressed flag of a gRPC message is 0 or 1")),
    };
    framed.truncate(end);
    drop(framed.drain(..body::PREFIX_BYTES));
    let message = body::inflate(doors, framed, coding, &mut permit).await?;
    Ok((message, permit))
}

/// `grpc.health.v1`: SERVING when spans are stored, whichever service is asked for (OTLP-73).
async fn health(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    const SERVING: u8 = 1;
    const NOT_SERVING: u8 = 2;
    if !is_grpc(&headers) {
        return not_grpc().await;
    }
    let status = if doors.readiness().ready { SERVING } else { NOT_SERVING };
    message(&[0x08, status])
}

fn success(exported: Exported) -> Response {
    message(&ExportTraceServiceResponse { partial_success: partial_success(exported) }.encode_to_vec())
}

/// One message and the trailers of success.
fn message(message: &[u8]) -> Response {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    let trailers =
        HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(bytes::Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let _none = response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Trailers-Only: some clients read the status from the response headers alone (OTLP-29).
pub(super) fn failure(refusal: &Refusal) -> Response {
    let mut response = status(refusal).into_http();
    if refusal.code == Code::Unimplemented {
        let _none = response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
    }
    response
}

/// Whoever asks so does not read gRPC.
async fn not_grpc() -> Response {
    let message = "this path speaks gRPC (content-type application/grpc); OTLP over HTTP is POST /v1/traces";
    let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    http::failure(&refusal, Encoding::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bi_124_bi_125_grpc_timeouts_have_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1n", Some(Duration::from_nanos(1))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("5S", Some(Duration::from_secs(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("2M", Some(Duration::from_mins(2))),
            ("", None),
            ("S", None),
            ("abc", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789S", None),
        ] {
            assert_eq!(timeout(text.as_bytes()).ok(), expected, "{text}");
        }
    }
}
