//! What Tempo's clients need changed in a trace before they can show it.

use crate::model::{Attribute, Rows, SpanBatch, UNKNOWN_SERVICE, Value};

/// The batch as Grafana's trace view can take it: no span ends before it starts (the difference is taken unsigned
/// there), and a resource without attributes says that its service is unknown (its spans are hidden otherwise).
///
/// For answers only; what is stored stays as sent. Cost: O(spans).
pub fn for_tempo(mut batch: SpanBatch) -> SpanBatch {
    for span in &mut batch.spans {
        span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    }
    if batch.resources.iter().all(|resource| 0 < resource.attributes.len) {
        return batch;
    }
    let (Some(key), Some(name)) = (batch.push_bytes(b"service.name"), batch.push_bytes(UNKNOWN_SERVICE.as_bytes()))
    else {
        return batch;
    };
    let Ok(start) = u32::try_from(batch.attributes.len()) else { return batch };
    batch.attributes.push(Attribute { key, value: Value::String(name) });
    for resource in &mut batch.resources {
        if resource.attributes.len == 0 {
            resource.attributes = Rows { start, len: 1 };
            resource.service = name;
        }
    }
    batch
}
