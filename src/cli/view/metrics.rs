//! Answers of Tempo's metrics API, over a range or of an instant.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::UnixNanos;

/// Answer of `/api/metrics/query_range` or `/api/metrics/query`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetricsView {
    /// In the server's order.
    pub series: Vec<MetricsSeriesView>,
    /// `PARTIAL` when something is missing.
    pub status: String,
    /// What.
    pub message: String,
}

/// One series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetricsSeriesView {
    /// What tells it from the others.
    pub labels: Vec<LabelView>,
    /// Over a range, by time.
    pub samples: Vec<SampleView>,
    /// Of an instant.
    #[serde(deserialize_with = "double")]
    pub value: f64,
    /// Spans that show points.
    pub exemplars: Vec<MetricsExemplarView>,
}

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LabelView {
    /// As written in the query.
    pub key: String,
    /// As text, of whatever type it is.
    #[serde(deserialize_with = "any_value")]
    pub value: String,
}

/// A point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SampleView {
    /// The end of its interval.
    #[serde(rename = "timestampMs", deserialize_with = "millis")]
    pub at: UnixNanos,
    /// Its number.
    #[serde(deserialize_with = "double")]
    pub value: f64,
}

/// A span that shows a point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetricsExemplarView {
    /// `trace:id`, `span:id`, `name` and more.
    pub labels: Vec<LabelView>,
    /// When it is counted.
    #[serde(rename = "timestampMs", deserialize_with = "millis")]
    pub at: UnixNanos,
    /// Where it is drawn.
    #[serde(deserialize_with = "double")]
    pub value: f64,
}

impl MetricsSeriesView {
    /// Its labels in one line: `resource.service.name=cart, p=0.99`.
    pub fn title(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
        labels.join(", ")
    }
}

impl MetricsExemplarView {
    /// The value of a label; empty when there is none.
    pub fn label(&self, key: &str) -> &str {
        self.labels.iter().find(|label| label.key == key).map_or("", |label| &label.value)
    }
}

/// JSON of protobuf: what no JSON number is comes as text.
fn double<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(text) if text == "Infinity" => Some(f64::INFINITY),
        Value::String(text) if text == "-Infinity" => Some(f64::NEG_INFINITY),
        Value::String(text) if text == "NaN" => Some(f64::NAN),
        Value::Null => Some(0.0),
        other => other.as_f64(),
    };
    number.ok_or_else(|| serde::de::Error::custom(format!("{value} is no number")))
}

fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixNanos, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let millis = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
    let nanos = millis.and_then(|millis: u64| millis.checked_mul(1_000_000));
    nanos.map(UnixNanos).ok_or_else(|| serde::de::Error::custom("a time is a string of milliseconds since 1970"))
}

/// `{"stringValue":"a"}` is `a`, whatever the form.
fn any_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let inner = value.as_object().and_then(|forms| forms.values().next());
    Ok(match inner {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    })
}
