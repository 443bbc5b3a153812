//! `/jaeger/api/traces`: the newest traces with a span like this.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

use super::{DOOR, Doors, Failure, spans, traces};
use crate::api::open_params::{MICRO, OpenParams};
use crate::api::params::BadParameter;
use crate::api::shown::with_coverage;
use crate::api::trace_search::{Conditions, TraceSearch, whole_traces};
use crate::limits::SEARCH_TRACES_MAX;
use crate::model::{DurationNanos, TimeRange, TraceId, UnixNanos};

/// Traces of an answer when nothing is said, as in Jaeger.
const LIMIT: usize = 100;
/// How far back is looked when nothing is said, as in Jaeger.
const LOOKBACK: DurationNanos = DurationNanos::from_secs(2 * 86_400);

pub(super) async fn search(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = OpenParams::of(&uri)?;
    let ids = params.all("traceID").map(|id| TraceId::parse_lenient(id).map_err(|error| bad(error.to_string())));
    let ids = ids.collect::<Result<Vec<TraceId>, BadParameter>>()?;
    let found = if ids.is_empty() {
        let search = search_of(&params, doors.query.now())?;
        doors.ask(DOOR, move |query| search.run(query, spans::write_trace)).await?
    } else {
        doors.ask(DOOR, move |query| whole_traces(query, &ids, spans::write_trace)).await?
    };
    Ok(with_coverage(traces(&found.json, found.n_traces), &found.coverage))
}

fn bad(message: impl Into<String>) -> BadParameter {
    BadParameter(message.into())
}

fn search_of(params: &OpenParams, now: UnixNanos) -> Result<TraceSearch, BadParameter> {
    let mut conditions = Conditions::default();
    let service = params.get("service").ok_or_else(|| bad("parameter 'service' is required"))?;
    conditions.service(service);
    if let Some(operation) = params.get("operation") {
        conditions.span_name(operation);
    }
    for (key, value) in tags(params)? {
        conditions.tag(&key, &value)?;
    }
    for (name, operator) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(text) = params.get(name) {
            conditions.duration(name, operator, text)?;
        }
    }
    let traces_max = params.count("limit", LIMIT, SEARCH_TRACES_MAX)?;
    Ok(TraceSearch { filter: conditions.filter()?, range: range(params, now)?, traces_max })
}

/// Both ends are microseconds and inside.
fn range(params: &OpenParams, now: UnixNanos) -> Result<TimeRange, BadParameter> {
    let end = params.nanos("end", MICRO)?.map_or(now, UnixNanos);
    let lookback = match params.get("lookback") {
        // Beside start and end, which Jaeger's page then sends.
        None | Some("custom") => LOOKBACK,
        Some(text) => {
            let wrong = || bad(format!("lookback={text} is not a length of time, such as 1h or 2d"));
            humantime::parse_duration(text).map(DurationNanos::from).map_err(|_| wrong())?
        }
    };
    let start = params.nanos("start", MICRO)?.map_or(end.saturating_sub(lookback), UnixNanos);
    Ok(TimeRange { start, end: end.saturating_add(DurationNanos(MICRO)) })
}

/// `tag=key:value` as often as one likes, and `tags` as a JSON object or as `key=value other="a value"`.
fn tags(params: &OpenParams) -> Result<Vec<(String, String)>, BadParameter> {
    let mut tags = Vec::new();
    for tag in params.all("tag") {
        let (key, value) = tag.split_once(':').ok_or_else(|| bad(format!("tag={tag} is not of the form key:value")))?;
        tags.push((key.to_owned(), value.to_owned()));
    }
    for text in params.all("tags") {
        if text.trim_start().starts_with('{') {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
                .map_err(|error| bad(format!("tags is not a JSON object of texts: {error}")))?;
            tags.extend(object.into_iter().map(|(key, value)| (key, json_text(value))));
        } else {
            logfmt(text, &mut tags)?;
        }
    }
    Ok(tags)
}

/// A text as it is, anything else as its JSON.
fn json_text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A key alone is true.
fn logfmt(text: &str, tags: &mut Vec<(String, String)>) -> Result<(), BadParameter> {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let Some(value) = behind.strip_prefix('=') else {
            tags.push((key.to_owned(), "true".to_owned()));
            rest = behind.trim_start();
            continue;
        };
        let mut quoted = serde_json::Deserializer::from_str(value).into_iter::<String>();
        let (value, used) = if value.starts_with('"') {
            let text = quoted.next().and_then(Result::ok);
            let text = text.ok_or_else(|| bad(format!("tags: the text behind {key}= has no end")))?;
            (text, quoted.byte_offset())
        } else {
            let end = value.find(char::is_whitespace).unwrap_or(value.len());
            (value.get(..end).unwrap_or_default().to_owned(), end)
        };
        tags.push((key.to_owned(), value));
        rest = behind.get(1 + used..).unwrap_or_default().trim_start();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &[(&str, &str)]) {
        let uri = format!("/jaeger/api/traces?{query}").parse().unwrap();
        let tags = tags(&OpenParams::of(&uri).unwrap()).unwrap();
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(tags, expected);
    }

    #[test]
    fn tags_come_as_json_as_logfmt_and_one_by_one() {
        check("tags=%7B%22a%22:%22x+y%22,%22b%22:500,%22c%22:true%7D", &[("a", "x y"), ("b", "500"), ("c", "true")]);
        check(
            "tags=a%3D1+b%3D%22x+%5C%22y%5C%22%22++error+c%3D%22%22d%3Dz%3Dz",
            &[("a", "1"), ("b", "x \"y\""), ("error", "true"), ("c", ""), ("d", "z=z")],
        );
        check("tag=a:b:c&tag=d:&tags=", &[("a", "b:c"), ("d", "")]);
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for query in ["tags=%7B%22a%22", "tags=a%3D%22b", "tag=a"] {
            let uri = format!("/jaeger/api/traces?{query}").parse().unwrap();
            assert!(tags(&OpenParams::of(&uri).unwrap()).is_err(), "{query}");
        }
    }
}
