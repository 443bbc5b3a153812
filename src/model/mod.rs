//! The words of the field: ids, times, spans in a batch, series.
//!
//! Everything above speaks in these types. Deliberately absent: bytes on a wire, files, threads, wall time.

mod batch;
mod copy;
mod ids;
#[cfg(test)]
pub(crate) mod samples;
mod semconv;
mod series;
mod time;

pub use batch::{
    Attribute, Event, Link, Resource, Rows, STATUS_CODE_ERROR, Scope, Span, SpanBatch, SpanKey, Text, Value,
};
pub use copy::SpanCopier;
pub use ids::{ParseIdError, SpanId, TraceId};
pub use semconv::{Conventions, MetricDimension, PEEL_DIMENSIONS, UNKNOWN_SERVICE};
pub use series::{Connection, Family, SeriesKey, SpanKind, SpanStatus};
pub use time::{DurationNanos, TimeRange, UnixNanos};
