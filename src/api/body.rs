//! Reading a body: never more than the limit, never without a permit, inflated in steps.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;

use crate::ingest::{Budget, Permit};

use super::refusal::BodyError;

/// Bytes by which a body grows between two looks at the budget.
const STEP_BYTES: usize = 64 * 1024;
/// A client that sends nothing for this long is given up.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// A decoded request takes about twice its bytes: the bytes themselves, and tables that point into them.
const DECODED_PER_BYTE: usize = 2;
/// zstd window: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
    Deflate,
}

impl Coding {
    /// Content codings are case-insensitive (RFC 9110 8.4.1); an empty one is identity.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BodyError> {
        match text.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"zstd" => Ok(Self::Zstd),
            b"deflate" => Ok(Self::Deflate),
            other => Err(BodyError::UnsupportedCoding { coding: String::from_utf8_lossy(other).into_owned() }),
        }
    }
}

/// Reads a whole body. The permit covers it and must live as long as the bytes.
pub(super) async fn read(
    mut body: Body,
    declared: Option<usize>,
    limit: usize,
    budget: &Budget,
) -> Result<(Vec<u8>, Permit), BodyError> {
    if declared.is_some_and(|declared| limit < declared) {
        return Err(BodyError::TooLarge { limit });
    }
    let mut permit = budget.admit(declared.unwrap_or(STEP_BYTES).min(STEP_BYTES)).await?;
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(FRAME_WITHIN, body.frame()).await.map_err(|_| BodyError::Incomplete)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        let Ok(data) = frame.into_data() else { continue };
        if limit < bytes.len() + data.len() {
            return Err(BodyError::TooLarge { limit });
        }
        budget.raise(&mut permit, (bytes.len() + data.len()).next_multiple_of(STEP_BYTES)).await?;
        bytes.extend_from_slice(&data);
    }
    if declared.is_some_and(|declared| bytes.len() < declared) {
        return Err(BodyError::Incomplete);
    }
    Ok((bytes, permit))
}

/// Inflates under the same limit, raising the permit as the result grows, and at the end to what decoding will take.
pub(super) async fn inflate(
    bytes: Vec<u8>,
    coding: Coding,
    limit: usize,
    budget: &Budget,
    permit: &mut Permit,
) -> Result<Vec<u8>, BodyError> {
    let received = bytes.len();
    let (name, mut reader): (_, Box<dyn Read + Send>) = match coding {
        Coding::Identity => {
            budget.raise(permit, bytes.len() * DECODED_PER_BYTE).await?;
            return Ok(bytes);
        }
        // A gzip file of nothing inflates to nothing; nothing at all is accepted too.
        Coding::Gzip | Coding::Deflate | Coding::Zstd if bytes.is_empty() => return Ok(bytes),
        Coding::Gzip => ("gzip", Box::new(flate2::read::MultiGzDecoder::new(std::io::Cursor::new(bytes)))),
        Coding::Deflate => ("deflate", Box::new(flate2::read::ZlibDecoder::new(std::io::Cursor::new(bytes)))),
        Coding::Zstd => ("zstd", Box::new(zstd_reader(bytes)?)),
    };
    let mut inflated = Vec::new();
    loop {
        budget.raise(permit, received + inflated.len() + STEP_BYTES).await?;
        let step = STEP_BYTES.min(limit + 1 - inflated.len());
        let step = u64::try_from(step).unwrap_or(u64::MAX);
        let read = reader.by_ref().take(step).read_to_end(&mut inflated);
        let read = read.map_err(|error| BodyError::Inflate { coding: name, why: error.to_string() })?;
        if limit < inflated.len() {
            return Err(BodyError::TooLarge { limit });
        }
        if read == 0 {
            budget.raise(permit, inflated.len() * DECODED_PER_BYTE).await?;
            return Ok(inflated);
        }
    }
}

fn zstd_reader(bytes: Vec<u8>) -> Result<impl Read + Send, BodyError> {
    let damaged = |error: std::io::Error| BodyError::Inflate { coding: "zstd", why: error.to_string() };
    let mut reader = zstd::stream::read::Decoder::new(std::io::Cursor::new(bytes)).map_err(damaged)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
    Ok(reader)
}
