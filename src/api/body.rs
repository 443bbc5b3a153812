//! Reading a body: never more than the limit, never without a permit, inflated in steps.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::clock;
use crate::ingest::Permit;

use super::Doors;
use super::refusal::BodyError;

/// Bytes by which a body grows between two looks at the budget.
const STEP_BYTES: usize = 64 * 1024;
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
///
/// The result is allocated once, for the length that the coding notes. Where that is missing or wrong, the length is counted
/// first: a buffer that doubles would hold a body twice, and leave holes of every size behind.
pub(super) async fn inflate(
    doors: &Doors,
    bytes: Vec<u8>,
    coding: Coding,
    permit: &mut Permit,
) -> Result<Vec<u8>, BodyError> {
    let (limit, budget) = (doors.body_bytes_max, doors.ingest.budget());
    // A gzip file of nothing inflates to nothing; nothing at all is accepted too.
    if coding == Coding::Identity || bytes.is_empty() {
        budget.raise(permit, bytes.len() * DECODED_PER_BYTE).await?;
        return Ok(bytes);
    }
    let mut inflated = Vec::new();
    let mut reader = coding.reader(&bytes)?;
    let mut length = coding.noted_length(&bytes).clamp(1, limit);
    loop {
        budget.raise(permit, bytes.len() + length).await?;
        inflated.reserve_exact(length - inflated.len());
        while inflated.len() < length && coding.step(&mut reader, length - inflated.len(), &mut inflated)? {
            tokio::task::yield_now().await;
        }
        // Filled to what was expected, or at the end before: is there more?
        let mut more = Vec::new();
        if !coding.step(&mut reader, 1, &mut more)? {
            break;
        }
        length = coding.count(&bytes, limit).await?;
        inflated.reserve_exact(length - inflated.len());
        inflated.append(&mut more);
    }
    budget.raise(permit, inflated.len() * DECODED_PER_BYTE).await?;
    Ok(inflated)
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    fn reader(self, bytes: &[u8]) -> Result<Box<dyn Read + Send + '_>, BodyError> {
        Ok(match self {
            Self::Identity => Box::new(bytes),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(bytes)),
            Self::Zstd => Box::new(zstd_reader(bytes)?),
        })
    }

    /// What the sender says it inflates to; 0 when it does not say. Not to be relied on.
    fn noted_length(self, bytes: &[u8]) -> usize {
        let noted = match self {
            Self::Identity => Some(bytes.len() as u64),
            Self::Deflate => None,
            // ISIZE of the last member (RFC 1952 2.3.1).
            Self::Gzip => bytes.last_chunk().map(|length| u64::from(u32::from_le_bytes(*length))),
            Self::Zstd => zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten(),
        };
        noted.and_then(|noted| usize::try_from(noted).ok()).unwrap_or(0)
    }

    /// Inflates up to `at_most` more bytes, and no more than a step; false at the end.
    fn step(self, reader: &mut (dyn Read + Send), at_most: usize, out: &mut Vec<u8>) -> Result<bool, BodyError> {
        let step = u64::try_from(at_most.min(STEP_BYTES)).unwrap_or(u64::MAX);
        let read = reader.take(step).read_to_end(out);
        let read = read.map_err(|error| BodyError::Inflate { coding: self.name(), why: error.to_string() })?;
        Ok(0 < read)
    }

    /// What it inflates to in fact, in no memory to speak of.
    async fn count(self, bytes: &[u8], limit: usize) -> Result<usize, BodyError> {
        let mut reader = self.reader(bytes)?;
        let (mut length, mut step) = (0, Vec::with_capacity(STEP_BYTES));
        while self.step(&mut reader, STEP_BYTES, &mut step)? {
            length += step.len();
            if limit < length {
                return Err(BodyError::TooLarge { limit });
            }
            step.clear();
            tokio::task::yield_now().await;
        }
        Ok(length)
    }
}

fn zstd_reader(bytes: &[u8]) -> Result<impl Read + Send, BodyError> {
    let damaged = |error: std::io::Error| BodyError::Inflate { coding: "zstd", why: error.to_string() };
    let mut reader = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
    Ok(reader)
}
