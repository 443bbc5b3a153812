//! What the gRPC doors have alike: five bytes in front of each message, deadlines, and statuses in trailers.
//!
//! Read and written here rather than by a gRPC server library: the size limit must answer RESOURCE_EXHAUSTED, memory must be
//! permitted before it is reserved, and undecodable bytes are the client's fault (OTLP-17, OTLP-25;
//! docs/adr/0004-own-unary-grpc.md).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::body::{self, Coding};
use super::inflate::Compression;
use super::refusal::{BodyError, Refusal};

/// What may be sent compressed.
const ACCEPTED: &str = "identity,gzip,zstd";

/// Whether the client speaks gRPC, and so reads nothing else.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let (essence, rest) = content_type.split_at_checked("application/grpc".len()).unwrap_or_default();
    essence.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// How long the client waits, if it says so: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, BodyError> {
    headers.get("grpc-timeout").map(|value| timeout(value.as_bytes())).transpose()
}

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

/// How the client compresses what it marks as compressed.
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, BodyError> {
    let coding = headers.get("grpc-encoding").map(|value| Coding::parse(value.as_bytes())).transpose()?;
    if coding == Some(Coding::Compressed(Compression::Deflate)) {
        return Err(BodyError::UnsupportedCoding { coding: "deflate".to_owned() });
    }
    Ok(coding)
}

/// The first message of what was received, and how it is compressed.
pub(super) fn unframed(mut framed: Vec<u8>, coding: Option<Coding>) -> Result<(Vec<u8>, Coding), BodyError> {
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
    Ok((framed, coding))
}

/// A message with its five bytes in front.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(body::PREFIX_BYTES + length);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(&mut framed);
    Bytes::from(framed)
}

/// The trailers of success.
pub(super) fn success() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

/// An answer with such a body.
pub(super) fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    let _none = response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message and the trailers of success.
pub(super) fn message(message: &impl Message) -> Response {
    answer(Body::new(Full::new(framed(message)).with_trailers(std::future::ready(Some(Ok(success()))))))
}

/// Trailers-Only: some clients read the status from the response headers alone (OTLP-29).
pub(super) fn failure(refusal: &Refusal) -> Response {
    let mut response = status(refusal).into_http();
    if refusal.code == Code::Unimplemented {
        let _none = response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ACCEPTED));
    }
    response
}

/// The trailers of an answer that cannot go on.
pub(super) fn broken_off(refusal: &Refusal) -> HeaderMap {
    let mut headers = failure(refusal).into_parts().0.headers;
    let _none = headers.remove(header::CONTENT_TYPE);
    headers
}

/// Header values of a refusal are read by terminals and log files.
pub(super) fn printable(path: &str) -> String {
    path.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// `google.rpc.Status` with RetryInfo in both places where clients look for it (OTLP-31), or BadRequest.
pub(super) fn status(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::new();
    if refusal.code == Code::InvalidArgument {
        let _details = details.add_bad_request_violation("", refusal.message.clone());
    }
    let Some(secs) = refusal.retry_after_secs else {
        return Status::with_error_details(refusal.code, refusal.message.clone(), details);
    };
    let delay = Duration::from_secs(secs);
    let _details = details.set_retry_info(Some(delay));
    let mut status = Status::with_error_details(refusal.code, refusal.message.clone(), details);
    let retry_info: tonic_types::pb::RetryInfo = tonic_types::RetryInfo::new(Some(delay)).into();
    let value = tonic::metadata::MetadataValue::from_bytes(&retry_info.encode_to_vec());
    let _none = status.metadata_mut().insert_bin("google.rpc.retryinfo-bin", value);
    status
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
