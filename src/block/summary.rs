//! What a block says about itself, for queries to pass it by and for lists of services.

use super::codec::{Malformed, Reader, put_text, put_varint};
use crate::model::{DurationNanos, UnixNanos};

/// Counts and bounds of a block. Where a minimum is above its maximum, no span has the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// Number of spans, at most `limits::BLOCK_SPANS_MAX`.
    pub spans: u32,
    /// Earliest start of the spans that have one.
    pub min_start: UnixNanos,
    /// Latest start of the spans that have one.
    pub max_start: UnixNanos,
    /// Earliest `Span::index_time`.
    pub min_index_time: UnixNanos,
    /// Latest `Span::index_time`.
    pub max_index_time: UnixNanos,
    /// Shortest `Span::latency`.
    pub min_latency: DurationNanos,
    /// Longest `Span::latency`.
    pub max_latency: DurationNanos,
    /// Latest arrival, as given to `encode`.
    pub horizon: UnixNanos,
    /// The services, ascending by namespace and name.
    pub services: Vec<ServiceCount>,
}

/// One service in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// `service.namespace`, empty when missing.
    pub namespace: String,
    /// `service.name`, `UNKNOWN_SERVICE` when missing.
    pub service: String,
    /// Its spans.
    pub spans: u64,
    /// Latest `Span::index_time` of them.
    pub last_seen: UnixNanos,
    /// Longest `Span::latency` of them, 0 when none has one.
    pub max_latency: DurationNanos,
}

impl BlockSummary {
    /// A block of no spans.
    pub(super) fn empty(horizon: UnixNanos) -> Self {
        Self {
            spans: 0,
            min_start: UnixNanos(u64::MAX),
            max_start: UnixNanos(0),
            min_index_time: UnixNanos(u64::MAX),
            max_index_time: UnixNanos(0),
            min_latency: DurationNanos(u64::MAX),
            max_latency: DurationNanos(0),
            horizon,
            services: Vec::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.spans));
        let times = [self.min_start, self.max_start, self.min_index_time, self.max_index_time, self.horizon];
        for number in times.map(|time| time.0).into_iter().chain([self.min_latency.0, self.max_latency.0]) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put_varint(out, self.services.len() as u64);
        for service in &self.services {
            put_text(out, service.namespace.as_bytes());
            put_text(out, service.service.as_bytes());
            put_varint(out, service.spans);
            put_varint(out, service.last_seen.0);
            put_varint(out, service.max_latency.0);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let spans = reader.varint_u32()?;
        let mut number = || reader.array().map(u64::from_be_bytes);
        let [min_start, max_start, min_index_time, max_index_time, horizon] =
            [number()?, number()?, number()?, number()?, number()?].map(UnixNanos);
        let [min_latency, max_latency] = [number()?, number()?].map(DurationNanos);
        let n_services = reader.count()?;
        let services = (0..n_services).map(|_| ServiceCount::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self {
            spans,
            min_start,
            max_start,
            min_index_time,
            max_index_time,
            min_latency,
            max_latency,
            horizon,
            services,
        })
    }
}

impl ServiceCount {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            namespace: read_string(reader)?,
            service: read_string(reader)?,
            spans: reader.varint()?,
            last_seen: UnixNanos(reader.varint()?),
            max_latency: DurationNanos(reader.varint()?),
        })
    }
}

/// A text that was written from a `str`.
pub(super) fn read_string(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    String::from_utf8(reader.text()?.to_vec()).map_err(|_| Malformed("a name is not UTF-8"))
}
