//! OTLP traces: from the bytes of a request to a batch, and from a batch to bytes.
//!
//! ```text
//! protobuf  --decode-->  Decoded { batch, rejected, warnings, .. }   --encode_traces-->  protobuf
//! JSON  --json_to_protobuf-->  protobuf  --decode-->  ..             --encode_json--->   JSON
//! Zipkin  --zipkin_.._to_otlp-->  protobuf  --decode-->  ..
//! ```
//!
//! Pure functions over bytes: no files, no threads, no clock. One bad span costs only itself; a fault outside every
//! span costs the request. Nothing recurses, so no input overflows the stack, and no memory is taken that the element
//! budget (16 MiB + 8 bytes for each byte of the request, and no more than the process can hold) does not cover.

mod array;
mod attribute;
mod binary_text;
mod budget;
mod decode;
mod encode;
mod encode_json;
mod envelope;
mod json;
mod outcome;
mod plain_json;
mod rewrite;
mod span;
mod span_size;
mod tempo;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod wire;
mod writer;
mod zipkin;

use crate::model::{DurationNanos, SpanBatch, UnixNanos};

pub use array::{ArrayElement, array_elements};
pub use encode::{Utf8, encode_traces};
pub use encode_json::{JsonDialect, encode_json, write_resource_spans_json};
pub use json::json_to_protobuf;
pub use outcome::{Counters, Rejection, Rejections, Undecodable, Warning, Warnings};
pub use plain_json::{base64, plain_json};
pub use tempo::for_tempo;
pub use wire::Fault;
pub use zipkin::{zipkin_json_to_otlp, zipkin_protobuf_to_otlp};

/// A tag with field number 0: no decoder takes the message around it.
const MALFORMED: &[u8] = &[0];

/// What a request is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecodeOptions {
    /// When the request arrived.
    pub now: UnixNanos,
    /// Spans that ended longer ago are refused; `None` keeps all.
    pub retention: Option<DurationNanos>,
    /// Accept trace ids of 8 bytes, left-padded with zeros.
    pub pad_64bit_trace_ids: bool,
    /// Nominal memory in bytes that no request may need, whatever its size; `None` leaves it to the element budget.
    pub element_cost_max: Option<u64>,
}

/// A request of another encoding as OTLP protobuf.
#[derive(Clone, Debug, Default)]
pub struct Translated {
    /// To be decoded, and kept in the journal, in place of what was sent.
    pub protobuf: Vec<u8>,
    /// To be merged into those of decoding.
    pub warnings: Warnings,
}

/// A request taken apart.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// The spans that are kept; the arena starts with the request's bytes.
    pub batch: SpanBatch,
    /// The others, by reason.
    pub rejected: Rejections,
    /// Their ordinals among all spans of the request in wire order, ascending.
    pub rejected_ordinals: Vec<u32>,
    /// What was kept, but not quite as sent.
    pub warnings: Warnings,
    /// What is counted without telling the sender.
    pub counters: Counters,
    /// Nominal memory of the request in bytes.
    pub element_cost: u64,
}

impl Decoded {
    /// The `error_message` for the sender, `None` when all is well: codes with counts, never values of attributes,
    /// at most `limits::ERROR_MESSAGE_BYTES_MAX` bytes of ASCII.
    pub fn message(&self) -> Option<String> {
        outcome::message(&self.rejected, self.batch.spans.len(), &self.warnings)
    }

    /// There were spans, and not one is kept: the request as a whole is answered as invalid.
    pub fn is_all_rejected(&self) -> bool {
        self.batch.spans.is_empty() && 0 < self.rejected.total()
    }
}

/// Decodes an `ExportTraceServiceRequest` (the same bytes as `TracesData`). Bad spans are counted and left out, their
/// neighbours are kept.
///
/// Cost: O(bytes), one pass over every span; no allocation per span beyond the growth of the tables.
///
/// # Errors
/// When the bytes are no request, or one of far more elements than its size warrants.
pub fn decode(body: Vec<u8>, options: &DecodeOptions) -> Result<Decoded, Undecodable> {
    decode::run(body, decode::Policy::Check(options))
}

/// Decodes a request of the journal: the batch of the first time, without the spans refused then. Times are not judged
/// again and the element budget does not apply: what was acknowledged comes back, also after a change of settings.
///
/// # Errors
/// As `decode`; cannot happen for bytes that were decoded once.
pub fn redecode(body: Vec<u8>, rejected_ordinals: &[u32]) -> Result<SpanBatch, Undecodable> {
    decode::run(body, decode::Policy::Replay(rejected_ordinals)).map(|decoded| decoded.batch)
}
