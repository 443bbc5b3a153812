//! Resource attributes that numbers are split by, and those of them that metrics have as labels.

use std::collections::BTreeSet;

use super::{ConfigError, bad};
use crate::limits;
use crate::model::{Conventions, MetricDimension};

/// Labels that metrics, buckets and exemplars have anyway.
const TAKEN: [&str; 8] = ["service", "span_name", "span_kind", "status_code", "le", "quantile", "trace_id", "span_id"];
/// Stands for every peel dimension.
const ALL: &str = "all";

/// At most `limits::PEEL_DIMENSIONS_MAX` different keys, of which `metric` names some.
pub(super) fn conventions(
    peel: Option<Vec<String>>,
    metric: Option<Vec<String>>,
    entry_spans: Option<Vec<String>>,
) -> Result<Conventions, ConfigError> {
    let mut conventions = Conventions::default();
    if let Some(keys) = peel {
        let named: BTreeSet<&String> = keys.iter().filter(|key| !key.is_empty()).collect();
        if named.len() != keys.len() || limits::PEEL_DIMENSIONS_MAX < keys.len() {
            return Err(bad("peel-dimensions", &keys.join(","), "a list of at most 16 different attribute keys"));
        }
        conventions.peel_dimensions = keys;
    }
    conventions.metric_dimensions = metric_dimensions(metric.unwrap_or_default(), &conventions.peel_dimensions)?;
    conventions.entry_span_services = entry_spans.unwrap_or_default().into_iter().collect();
    Ok(conventions)
}

fn metric_dimensions(keys: Vec<String>, peel: &[String]) -> Result<Vec<MetricDimension>, ConfigError> {
    let keys = if keys == [ALL] { peel.to_vec() } else { keys };
    let mut dimensions: Vec<MetricDimension> = Vec::new();
    for key in keys {
        if !peel.contains(&key) {
            let known = peel.join(", ");
            return Err(ConfigError::Conflict(format!(
                "metric-dimensions names {key:?}, which is none of peel-dimensions: {known}"
            )));
        }
        let dimension = MetricDimension::of(key);
        let MetricDimension { attribute, label } = &dimension;
        if TAKEN.contains(&label.as_str()) {
            return Err(ConfigError::Conflict(format!(
                "metric-dimensions names {attribute:?}, whose label {label} means something else; leave it out"
            )));
        }
        if let Some(other) = dimensions.iter().find(|known| known.label == *label) {
            return Err(ConfigError::Conflict(format!(
                "metric-dimensions names {:?} and {attribute:?}, which would both be the label {label}; keep one",
                other.attribute
            )));
        }
        dimensions.push(dimension);
    }
    Ok(dimensions)
}
