//! Searches for whole traces by what one of their spans is like, as Jaeger and Zipkin ask: conditions become one filter of
//! TraceQL, the traces that it finds are read and written one by one.

use std::time::Duration;

use crate::clock;
use crate::limits::{SEARCH_BYTES_MAX, SEARCH_SECS_MAX};
use crate::model::{TimeRange, TraceId, UNKNOWN_SERVICE};
use crate::query::traceql::{AttributeScope, Field, Filter, SpanQuery};
use crate::query::{Coverage, Query, QueryError, SearchQuestion, TraceAnswer, TraceConditions};

use super::params::BadParameter;

/// Traces that are read together.
const READ_AT_ONCE: usize = 50;

/// Conditions in TraceQL, all of which one span fulfils.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<String>);

impl Conditions {
    pub(super) fn service(&mut self, name: &str) {
        let is_named = format!("resource.service.name = {}", quoted(name));
        self.0.push(if name == UNKNOWN_SERVICE {
            format!("({is_named} || resource.service.name = \"\" || resource.service.name = nil)")
        } else {
            is_named
        });
    }

    pub(super) fn span_name(&mut self, name: &str) {
        self.0.push(format!("name = {}", quoted(name)));
    }

    /// Of the span or its resource, whatever its type: a client has only its text. What we show as tags although it is no
    /// attribute is found as well.
    pub(super) fn tag(&mut self, key: &str, value: &str) -> Result<(), BadParameter> {
        if (key, value) == ("error", "false") {
            // A span that says nothing of errors has none.
            self.0.push("status != error".to_owned());
            return Ok(());
        }
        let mut alternatives = match (key, value) {
            ("error", "true") => vec!["status = error".to_owned()],
            ("span.kind", "internal" | "server" | "client" | "producer" | "consumer") => {
                vec![format!("kind = {value}")]
            }
            ("otel.status_code", "OK" | "ERROR" | "UNSET") => vec![format!("status = {}", value.to_ascii_lowercase())],
            ("otel.status_description", _) => vec![format!("span:statusMessage = {}", quoted(value))],
            ("otel.scope.name", _) => vec![format!("instrumentation:name = {}", quoted(value))],
            ("otel.scope.version", _) => vec![format!("instrumentation:version = {}", quoted(value))],
            _ => Vec::new(),
        };
        let field = attribute(key)?;
        let values = std::iter::once(quoted(value)).chain(literal(value));
        alternatives.extend(values.map(|value| format!("{field} = {value}")));
        self.0.push(format!("({})", alternatives.join(" || ")));
        Ok(())
    }

    /// An event of this name, or an attribute of this key.
    pub(super) fn annotation(&mut self, text: &str) -> Result<(), BadParameter> {
        let field = attribute(text)?;
        let is_failed = if text == "error" { " || status = error" } else { "" };
        self.0.push(format!("(event:name = {} || {field} != nil{is_failed})", quoted(text)));
        Ok(())
    }

    /// `text` as Go writes a duration, which is also TraceQL's way: `1.5s`, `1h30m`, `100us`.
    pub(super) fn duration(&mut self, name: &str, operator: &str, text: &str) -> Result<(), BadParameter> {
        let condition = format!("duration {operator} {text}");
        let is_word = text.ends_with(char::is_alphabetic) && text.chars().all(|c| c.is_alphanumeric() || c == '.');
        if !is_word || condition.parse::<Filter>().is_err() {
            return Err(BadParameter(format!("{name}={text} is not a length of time, such as 100us, 1.5s or 1h30m")));
        }
        self.0.push(condition);
        Ok(())
    }

    /// `None` when there are no conditions.
    pub(super) fn filter(self) -> Result<Option<Filter>, BadParameter> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let filter = self.0.join(" && ").parse();
        filter.map(Some).map_err(|error| BadParameter(format!("the conditions cannot be searched by: {error}")))
    }
}

fn attribute(key: &str) -> Result<Field, BadParameter> {
    if key.is_empty() {
        return Err(BadParameter("a tag without a name cannot be searched by".to_owned()));
    }
    Ok(Field::Attribute { scope: AttributeScope::Unscoped, key: key.to_owned() })
}

/// A text of TraceQL.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{text}\"")
}

/// The boolean or number that `text` may have been.
fn literal(text: &str) -> Option<String> {
    if text == "true" || text == "false" {
        return Some(text.to_owned());
    }
    if !text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(i64::MIN) => Some("minInt".to_owned()),
        Ok(number) => Some(number.to_string()),
        Err(_) => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| format!("{number:?}")),
    }
}

/// How a protocol writes one trace.
pub(super) type WriteTrace = fn(&TraceAnswer, &mut Vec<u8>) -> serde_json::Result<()>;

/// What is searched for.
#[derive(Debug)]
pub(super) struct TraceSearch {
    pub(super) filter: Option<Filter>,
    pub(super) range: TimeRange,
    pub(super) traces_max: usize,
}

/// Whole traces, written with commas between them.
#[derive(Debug, Default)]
pub(super) struct WrittenTraces {
    pub(super) json: Vec<u8>,
    pub(super) n_traces: usize,
    pub(super) coverage: Coverage,
}

impl WrittenTraces {
    fn cut(mut self) -> Self {
        let reason = format!("more traces were found than an answer may hold: {} are shown", self.n_traces);
        self.coverage.also(Coverage { reasons: vec![reason] });
        self
    }
}

impl TraceSearch {
    /// The newest traces with such a span.
    pub(super) fn run(self, query: &Query, write: WriteTrace) -> Result<WrittenTraces, QueryError> {
        let Self { filter, range, traces_max } = self;
        let spans = filter.map(SpanQuery::from).unwrap_or_default();
        let trace = TraceConditions::default();
        let answer = query.search(&SearchQuestion { query: spans, range, trace, traces_max, spans_per_set_max: 1 })?;
        let ids: Vec<TraceId> = answer.traces.iter().map(|trace| trace.trace_id).collect();
        let mut traces = whole_traces(query, &ids, write)?;
        traces.coverage.also(answer.coverage);
        Ok(traces)
    }
}

/// The stored ones of these traces, as many as an answer may hold.
pub(super) fn whole_traces(query: &Query, ids: &[TraceId], write: WriteTrace) -> Result<WrittenTraces, QueryError> {
    let began = clock::instant();
    let mut traces = WrittenTraces::default();
    for ids in ids.chunks(READ_AT_ONCE) {
        match query.may_go_on(began, Duration::from_secs(SEARCH_SECS_MAX)) {
            Err(QueryError::TooLong { .. } | QueryError::NoTurn { .. }) if 0 < traces.n_traces => {
                return Ok(traces.cut());
            }
            may => may?,
        }
        for answer in query.traces(ids)? {
            if SEARCH_BYTES_MAX <= traces.json.len() || SEARCH_SECS_MAX <= began.elapsed().as_secs() {
                return Ok(traces.cut());
            }
            if !answer.batch.spans.is_empty() {
                if 0 < traces.n_traces {
                    traces.json.push(b',');
                }
                write(&answer, &mut traces.json).map_err(|_| QueryError::Failed)?;
                traces.n_traces += 1;
            }
            traces.coverage.also(answer.coverage);
        }
    }
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(conditions: Conditions, normal: &str) {
        assert_eq!(conditions.filter().unwrap().unwrap().to_string(), normal);
    }

    #[test]
    fn texts_stay_texts_whatever_they_hold() {
        let mut conditions = Conditions::default();
        conditions.service("a\" || true || \"");
        conditions.span_name("GET /\\d+\n{x}");
        conditions.tag("a b\"\\} || {", "`\"\\").unwrap();
        check(
            conditions,
            "{ resource.service.name = \"a\\\" || true || \\\"\" && span:name = \"GET /\\\\d+\\n{x}\" \
             && .\"a b\\\"\\\\} || {\" = \"`\\\"\\\\\" }",
        );
    }

    #[test]
    fn a_tag_is_looked_for_in_every_type_that_its_text_may_have_been() {
        for (value, or) in [
            ("500", " || .k = 500"),
            ("-7", " || .k = -7"),
            ("0.50", " || .k = 0.5"),
            ("1e300", " || .k = 1e300"),
            ("true", " || .k = true"),
            ("-9223372036854775808", " || .k = minInt"),
            ("9223372036854775808", " || .k = 9.223372036854776e18"),
        ] {
            let mut conditions = Conditions::default();
            conditions.tag("k", value).unwrap();
            check(conditions, &format!("{{ .k = \"{value}\"{or} }}"));
        }
        for value in ["inf", "NaN", "+5", "5x", "", "-", ".5", "True"] {
            let mut conditions = Conditions::default();
            conditions.tag("k", value).unwrap();
            check(conditions, &format!("{{ .k = \"{value}\" }}"));
        }
    }

    #[test]
    fn durations_are_those_of_go_and_nothing_else() {
        for text in ["1ms", "1.5s", "1h30m", "100us", "100\u{b5}s"] {
            assert!(Conditions::default().duration("minDuration", ">=", text).is_ok(), "{text}");
        }
        for text in ["5", "1 s", "s", "-1s", "1s || true", "1ms)", "name", "9999999999h"] {
            assert!(Conditions::default().duration("minDuration", ">=", text).is_err(), "{text}");
        }
    }
}
