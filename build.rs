//! Compiles `proto/` without `protoc`.

/// Messages that are JSON over HTTP as well.
const JSON: [&str; 20] = [
    "SearchResponse",
    "TraceSearchMetadata",
    "ServiceStats",
    "SpanSet",
    "Span",
    "KeyValue",
    "SearchMetrics",
    "SearchTagsResponse",
    "SearchTagsV2Response",
    "TagScope",
    "SearchTagValuesResponse",
    "SearchTagValuesV2Response",
    "TagValue",
    "TagMetrics",
    "QueryRangeResponse",
    "TimeSeries",
    "Sample",
    "Exemplar",
    "QueryInstantResponse",
    "InstantSeries",
];
const DERIVE: &str = "#[derive(serde::Serialize, serde::Deserialize)]";
/// Fields whose JSON is not that of their Rust type.
const FIELDS: [(&str, &str); 25] = [
    ("TraceSearchMetadata.trace_id", "rename = \"traceID\""),
    ("TraceSearchMetadata.start_time_unix_nano", INTEGER),
    ("SpanSet.attributes", "skip_serializing_if = \"Vec::is_empty\""),
    ("Span.span_id", "rename = \"spanID\""),
    ("Span.start_time_unix_nano", INTEGER),
    ("Span.duration_nanos", INTEGER),
    ("int_value", INTEGER),
    ("double_value", DOUBLE),
    ("SearchMetrics.inspected_bytes", INTEGER_OR_NONE),
    ("SearchMetrics.total_block_bytes", INTEGER_OR_NONE),
    ("SearchMetrics.inspected_spans", INTEGER),
    ("TagMetrics.inspected_bytes", INTEGER_OR_NONE),
    ("TagMetrics.total_jobs", NONE),
    ("TagMetrics.completed_jobs", NONE),
    ("TagMetrics.total_blocks", NONE),
    ("TagMetrics.total_block_bytes", INTEGER_OR_NONE),
    ("SearchTagsResponse.metrics", "skip_serializing_if = \"Option::is_none\""),
    ("SearchTagValuesResponse.metrics", "skip_serializing_if = \"Option::is_none\""),
    ("Sample.value", DOUBLE),
    ("Sample.timestamp_ms", INTEGER),
    ("Exemplar.value", DOUBLE),
    ("Exemplar.timestamp_ms", INTEGER),
    ("InstantSeries.value", DOUBLE),
    ("QueryRangeResponse.status", STATUS),
    ("QueryInstantResponse.status", STATUS),
];
/// 64 bits are a text.
const INTEGER: &str = "with = \"crate::api::tempo::wire::integer\"";
const INTEGER_OR_NONE: &str =
    "with = \"crate::api::tempo::wire::integer\", skip_serializing_if = \"crate::api::tempo::wire::is_zero\"";
/// Zero is left out.
const NONE: &str = "skip_serializing_if = \"crate::api::tempo::wire::is_zero\"";
/// Three values have words.
const DOUBLE: &str = "with = \"crate::api::tempo::wire::double\"";
/// By its name.
const STATUS: &str = "with = \"crate::api::tempo::wire::status\"";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["tempo.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    let _config = config.btree_map(["service_stats", "tags"]);
    for message in JSON {
        let _config = config.message_attribute(message, DERIVE);
        let _config =
            config.message_attribute(message, "#[serde(rename_all = \"camelCase\", default, deny_unknown_fields)]");
    }
    // One of several, named by its key.
    let _config = config.message_attribute("AnyValue", format!("{DERIVE}\n#[serde(transparent)]"));
    let _config = config.enum_attribute("AnyValue.value", format!("{DERIVE}\n#[serde(rename_all = \"camelCase\")]"));
    for (field, json) in FIELDS {
        let _config = config.field_attribute(field, format!("#[serde({json})]"));
    }
    config.compile_fds(files)?;
    Ok(())
}
