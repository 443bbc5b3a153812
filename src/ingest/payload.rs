//! Payload of a journal record: the request body as it was decoded, and which of its spans were rejected. Replay
//! decodes it again and leaves out exactly those.
//!
//! ```text
//! version:1 = 1 | body bytes:4 BE | compressed bytes:4 BE | LZ4 block | rejected ordinals, 4 BE each
//! ```

use crate::limits::REQUEST_BYTES_MAX;
use crate::model::SpanBatch;
use crate::otlp::{self, Decoded};

const VERSION: u8 = 1;
/// The longest body a payload may claim, against damaged length fields. A request of another encoding may become longer as
/// the protobuf that is journaled.
const BODY_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// Why a payload cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    #[error("journal payload of version {0}, this program reads 1; use the version that wrote it")]
    UnknownVersion(u8),
    #[error("journal payload is cut short")]
    Short,
    #[error("journal payload does not inflate")]
    Inflate(#[from] lz4_flex::block::DecompressError),
    #[error("journal payload does not decode")]
    Decode(#[from] otlp::Undecodable),
}

/// `body_bytes`: how much of the arena's front is the request.
pub(super) fn encode(decoded: &Decoded, body_bytes: usize) -> Vec<u8> {
    let body = decoded.batch.bytes.get(..body_bytes).unwrap_or_default();
    let mut payload = Vec::with_capacity(9 + lz4_flex::block::get_maximum_output_size(body.len()));
    payload.push(VERSION);
    payload.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    let compressed = lz4_flex::block::compress(body);
    payload.extend_from_slice(&u32::try_from(compressed.len()).unwrap_or(u32::MAX).to_be_bytes());
    payload.extend_from_slice(&compressed);
    for ordinal in &decoded.rejected_ordinals {
        payload.extend_from_slice(&ordinal.to_be_bytes());
    }
    payload.shrink_to_fit();
    payload
}

/// The batch that was acknowledged.
pub(super) fn decode(payload: &[u8]) -> Result<SpanBatch, PayloadError> {
    let (version, rest) = payload.split_first().ok_or(PayloadError::Short)?;
    if *version != VERSION {
        return Err(PayloadError::UnknownVersion(*version));
    }
    let (body_bytes, rest) = rest.split_first_chunk::<4>().ok_or(PayloadError::Short)?;
    let (compressed_bytes, rest) = rest.split_first_chunk::<4>().ok_or(PayloadError::Short)?;
    let compressed_bytes = u32::from_be_bytes(*compressed_bytes) as usize;
    let (compressed, ordinals) = rest.split_at_checked(compressed_bytes).ok_or(PayloadError::Short)?;
    let body_bytes = u32::from_be_bytes(*body_bytes) as usize;
    if BODY_BYTES_MAX < body_bytes {
        return Err(PayloadError::Short);
    }
    let body = lz4_flex::block::decompress(compressed, body_bytes)?;
    let (ordinals, _odd_bytes) = ordinals.as_chunks::<4>();
    let rejected: Vec<u32> = ordinals.iter().map(|ordinal| u32::from_be_bytes(*ordinal)).collect();
    Ok(otlp::redecode(body, &rejected)?)
}
