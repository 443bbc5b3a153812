//! Reading a body: never more than the limit, never without a permit, inflated in steps.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::clock;
use crate::ingest::Permit;

use super::Doors;
use super::inflate::{Compression, InflateError, Inflating, STEP_BYTES};
use super::refusal::BodyError;

/// What a request may hold before its first byte came. Small: thousands of streams may promise and send nothing.
const FIRST_BYTES: usize = 4 * 1024;
/// A body that has not come so far is not counted for more than that.
const FIRST_STEP_BYTES: usize = 16 * 1024;
/// Then it gets all it has announced at once, up to so many times what has come. At once, because requests that each wait for
/// the rest of their share, holding a part of it, get nowhere together; and so far, because announcing costs nothing.
const TRUST: usize = 64;
/// A body that is slower is given up, after the time that any body may pause.
const BYTES_PER_SEC_MIN: u64 = 1024;
/// A refused body is read on so far, for the sake of the answer.
const DISCARD_WITHIN: Duration = Duration::from_secs(1);
/// A decoded request takes about three times its bytes: themselves, tables that point into them, and a journal record.
const DECODED_PER_BYTE: usize = 3;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Compressed(Compression),
}

impl Coding {
    /// Content codings are case-insensitive (RFC 9110 8.4.1); an empty one is identity.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BodyError> {
        match text.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Compressed(Compression::Gzip)),
            b"zstd" => Ok(Self::Compressed(Compression::Zstd)),
            b"deflate" => Ok(Self::Compressed(Compression::Deflate)),
            other => Err(BodyError::UnsupportedCoding { coding: String::from_utf8_lossy(other).into_owned() }),
        }
    }
}

/// How the length of a body is known before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Announced {
    /// From `Content-Length`, if there is one.
    Length(Option<usize>),
    /// From the five bytes in front of a gRPC message.
    InFront,
}

/// Bytes in front of a gRPC message.
pub(super) const PREFIX_BYTES: usize = 5;

/// Flag and length of a gRPC message; `None` before they are there.
pub(super) fn prefix(framed: &[u8]) -> Option<(u8, usize)> {
    let [flag, length @ ..] = *framed.first_chunk::<PREFIX_BYTES>()?;
    Some((flag, u32::from_be_bytes(length) as usize))
}

/// The body of an HTTP request, inflated. The permit covers it and must live as long as the bytes.
pub(super) async fn receive(
    doors: &Doors,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<(Vec<u8>, Permit), BodyError> {
    let coding = headers.get(header::CONTENT_ENCODING).map_or(Ok(Coding::Identity), |v| Coding::parse(v.as_bytes()))?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let (bytes, mut permit) = match read(doors, &mut body, Announced::Length(length)).await {
        Ok(read) => read,
        Err(error) => {
            discard(&mut body).await;
            return Err(error);
        }
    };
    let bytes = inflate(doors, bytes, coding, &mut permit).await?;
    Ok((bytes, permit))
}

/// Lets go of what is still coming, for a moment. A connection that closes with bytes unread is reset, and the client
/// loses the answer that says why and whether a retry helps.
async fn discard(body: &mut Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _still_coming = tokio::time::timeout(DISCARD_WITHIN, rest).await;
}

/// Reads a whole body, as it was sent.
pub(super) async fn read(doors: &Doors, body: &mut Body, announced: Announced) -> Result<(Vec<u8>, Permit), BodyError> {
    let (limit, budget) = (doors.body_bytes_max, doors.ingest.budget());
    let (declared, bytes_max) = match announced {
        Announced::Length(length) => (length, limit),
        Announced::InFront => (None, limit + PREFIX_BYTES),
    };
    if declared.is_some_and(|declared| bytes_max < declared) {
        return Err(BodyError::TooLarge { limit });
    }
    let stalls_within = doors.body_stalls_within;
    let began = clock::instant();
    let mut permit = budget.admit(declared.unwrap_or(FIRST_BYTES).min(FIRST_BYTES)).await?;
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(stalls_within, body.frame()).await.map_err(|_| BodyError::Incomplete)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        let took = began.elapsed();
        if stalls_within < took && (length as u64) < took.as_secs() * BYTES_PER_SEC_MIN {
            return Err(BodyError::Incomplete);
        }
        if bytes_max < length {
            return Err(BodyError::TooLarge { limit });
        }
        let expected = match announced {
            Announced::Length(length) => length,
            Announced::InFront => {
                let front: &[u8] = if bytes.is_empty() { &data } else { &bytes };
                prefix(front).map(|(_, length)| PREFIX_BYTES + length)
            }
        };
        let expected = expected.unwrap_or(2 * length).clamp(length, bytes_max);
        let room = expected.min(length.saturating_mul(TRUST));
        if FIRST_STEP_BYTES <= length || expected <= length {
            budget.raise(&mut permit, room * DECODED_PER_BYTE).await?;
        }
        if bytes.capacity() < length {
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&data);
        // Refused as soon as it is announced: some clients send the same again and again.
        if matches!(announced, Announced::InFront) && prefix(&bytes).is_some_and(|(_, length)| limit < length) {
            return Err(BodyError::TooLarge { limit });
        }
    }
    if declared.is_some_and(|declared| bytes.len() < declared) {
        return Err(BodyError::Incomplete);
    }
    Ok((bytes, permit))
}

/// Inflates under the same limit, raising the permit as the result grows, and at the end to what decoding will take.
pub(super) async fn inflate(
    doors: &Doors,
    bytes: Vec<u8>,
    coding: Coding,
    permit: &mut Permit,
) -> Result<Vec<u8>, BodyError> {
    let (limit, budget) = (doors.body_bytes_max, doors.ingest.budget());
    let compression = match coding {
        // A gzip file of nothing inflates to nothing; nothing at all is accepted too.
        Coding::Compressed(compression) if !bytes.is_empty() => compression,
        Coding::Identity | Coding::Compressed(_) => {
            budget.raise(permit, bytes.len() * DECODED_PER_BYTE).await?;
            return Ok(bytes);
        }
    };
    let failed = |error: InflateError| match error {
        InflateError::TooLarge { limit } => BodyError::TooLarge { limit },
        InflateError::Damaged(error) => BodyError::Inflate { coding: compression.name(), why: error.to_string() },
    };
    let received = bytes.len();
    budget.raise(permit, received + compression.noted_length(&bytes).min(limit)).await?;
    let mut inflating = Inflating::new(bytes, compression, limit).map_err(failed)?;
    loop {
        budget.raise(permit, received + inflating.inflated().len() + STEP_BYTES).await?;
        if !inflating.step().map_err(failed)? {
            break;
        }
        tokio::task::yield_now().await;
    }
    budget.raise(permit, inflating.inflated().len() * DECODED_PER_BYTE).await?;
    Ok(inflating.into_inflated())
}
