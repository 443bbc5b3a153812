//! What several protocols show of a span alike.

use axum::http::HeaderValue;
use axum::response::Response;

use crate::model::{SpanBatch, Value};
use crate::otlp::{base64, plain_json};
use crate::query::Coverage;

/// A value where only texts are understood: arrays and key-value lists as compact JSON, bytes as base64, nothing as the
/// empty text.
pub(super) fn text_of(batch: &SpanBatch, value: Value) -> String {
    match value {
        Value::Empty => String::new(),
        Value::String(text) => batch.text_lossy(text).into_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bytes(bytes) => base64(batch.text(bytes)),
        Value::Nested(encoded) => plain_json(batch.text(encoded)),
    }
}

/// Names what is missing in the header `spandrel-coverage`, for protocols that have no place for it.
pub(super) fn with_coverage(mut response: Response, coverage: &Coverage) -> Response {
    if !coverage.is_complete()
        && let Ok(value) = HeaderValue::from_str(&coverage.reasons.join("; "))
    {
        let _none = response.headers_mut().insert("spandrel-coverage", value);
    }
    response
}
