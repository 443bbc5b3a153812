//! Exemplars against the spans that were sent: each is one of them, in its bucket, and opens.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Filled;
use super::related::Related;
use super::sent::{SECOND, Sent, an_hour_ago, ask, bound_of, bounds, secs, send};
use crate::support::TestServer;

/// Spans that were sent, and the traces that were opened.
pub(super) struct Known<'a> {
    server: &'a TestServer,
    spans: BTreeMap<String, &'a Sent>,
    opened: BTreeSet<u64>,
}

/// Labels of a series, and the spans behind its exemplars.
pub(super) type Found<'a> = Vec<(BTreeMap<String, String>, Vec<&'a Sent>)>;

impl<'a> Known<'a> {
    pub(super) fn new(server: &'a TestServer, spans: &'a [Sent]) -> Self {
        let spans = spans.iter().map(|sent| (format!("{:016x}", sent.id), sent)).collect();
        Self { server, spans, opened: BTreeSet::new() }
    }

    /// What a query has from `start` to `end` in milliseconds.
    pub(super) fn ask(&mut self, query: &str, (start, end): (i64, i64), more: &[(&str, &str)]) -> Found<'a> {
        let (start_text, end_text) = (secs(start), secs(end));
        let pairs = [&[("query", query), ("start", &start_text), ("end", &end_text)], more].concat();
        let answer = ask(self.server, "query_exemplars", &pairs);
        assert_eq!(answer.as_object().expect("an object").keys().collect::<Vec<_>>(), ["data", "status"], "{answer}");
        assert_eq!(answer, ask(self.server, "query_exemplars", &pairs), "the same of the same");
        let mut found = Found::new();
        for series in answer["data"].as_array().expect("series") {
            assert_eq!(series.as_object().map(serde_json::Map::len), Some(2), "{series}");
            let labels = series["seriesLabels"].as_object().expect("labels").iter();
            let labels: BTreeMap<String, String> =
                labels.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect();
            let exemplars = series["exemplars"].as_array().expect("exemplars");
            assert!((1..=100).contains(&exemplars.len()), "{query}: {}", exemplars.len());
            let mut spans = Vec::new();
            for exemplar in exemplars {
                let sent = self.check(exemplar, &format!("{query} {labels:?}"));
                assert!((start..=end).contains(&i64::try_from(sent.start / 1_000_000).expect("small")), "{query}");
                let bound = labels["__name__"]
                    .ends_with("_bucket")
                    .then(|| bounds()[bound_of(sent.latency.expect("it counts"))].clone());
                assert_eq!(labels.get("le"), bound.as_ref(), "{query}: previous le < value <= le, the same text");
                for name in ["service", "span_name", "span_kind", "status_code"] {
                    assert_eq!(labels.get(name).filter(|value| **value != sent.label(name)), None, "{query}");
                }
                spans.push(sent);
            }
            assert!(spans.iter().map(|sent| sent.start / 1_000_000).is_sorted(), "{query}: in order of time");
            found.push((labels, spans));
        }
        found
    }

    /// Its span is the one that it names; the trace opens.
    fn check(&mut self, exemplar: &Value, query: &str) -> &'a Sent {
        let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(exemplar), ["labels", "timestamp", "value"], "{query}");
        assert_eq!(keys(&exemplar["labels"]), ["span_id", "trace_id"], "{query}");
        let sent = self.spans[exemplar["labels"]["span_id"].as_str().expect("an id")];
        let trace = format!("{:032x}", sent.trace);
        assert_eq!(exemplar["labels"]["trace_id"], trace, "{query}");
        let value = exemplar["value"].as_str().and_then(|text| text.parse::<f64>().ok());
        assert_eq!(value, sent.latency.map(|latency| latency as f64 / 1e9), "{query}: {exemplar}");
        let at = exemplar["timestamp"].as_f64().map(|secs| (secs * 1e3).round() as u64);
        assert_eq!(at, Some(sent.start / 1_000_000), "{query}");
        if self.opened.insert(sent.trace) {
            let answer = self.server.get(&format!("/api/v2/traces/{trace}"));
            let start = format!("\"startTimeUnixNano\":\"{}\"", sent.start);
            assert!(answer.status == 200 && answer.text().contains(&start), "{query}: {}", answer.text());
        }
        sent
    }
}

const METRICS: [&str; 5] = ["calls_total", "latency", "latency_count", "latency_sum", "latency_bucket"];

#[test]
fn ex_02_03_04_05_07_08_09_10_11_every_exemplar_of_span_metrics_is_a_span_that_opens() {
    let filled = Filled::new();
    let mut known = Known::new(&filled.server, &filled.all);
    let (first, whole) = (filled.first, (filled.first, filled.first + 1_800_000));
    for (no, name) in METRICS.into_iter().enumerate() {
        let metric = format!("traces_spanmetrics_{name}");
        for (at, range) in
            [whole, (first + 13_337, first + 13_338), (first + 601_234, first + 955_555)].into_iter().enumerate()
        {
            let selected = format!(r#"{metric}{{service=~"c.+"}}"#);
            let q = match (no + at) % 4 {
                0 => selected,
                1 => format!("histogram_quantile(0.95, sum by (le) (rate({selected}[1m] offset 7m)))"),
                2 => format!("max_over_time(sum(increase({selected}[1m]))[1h:]) > 1e9"),
                _ => format!("-rate({selected}[1m]) / vector(3) or nothing_of_that_name"),
            };
            let found = known.ask(&q, range, &[]);
            let services: BTreeSet<&str> = found.iter().map(|(labels, _)| labels["service"].as_str()).collect();
            assert!(found.iter().all(|(labels, _)| labels["__name__"] == metric), "{q}");
            if range == whole {
                assert_eq!(services, BTreeSet::from(["cart", "checkout"]), "{q}");
            }
        }
    }
    assert!(500 < known.opened.len(), "{} traces were opened", known.opened.len());
}

#[test]
fn ex_05_bounds_of_buckets_values_and_number_choose_among_exemplars() {
    let filled = Filled::new();
    let mut known = Known::new(&filled.server, &filled.all);
    let range = (filled.first + 305_678, filled.first + 1_203_210);
    let all = known.ask("traces_spanmetrics_latency_bucket", range, &[]);
    for le in ["0.000008191", "0.268435455", "+Inf"] {
        let found = known.ask(&format!("traces_spanmetrics_latency_bucket{{le=\"{le}\"}}"), range, &[]);
        let of_bound: Vec<_> = all.iter().filter(|(labels, _)| labels["le"] == le).map(|(labels, _)| labels).collect();
        assert!(!of_bound.is_empty() && found.iter().map(|(labels, _)| labels).eq(of_bound), "{le}");
    }
    let count = known.ask("traces_spanmetrics_latency_count", range, &[]);
    for (limits, least, most) in [
        (&[("min_value", "0.1")][..], 100_000_000, u64::MAX),
        (&[("max_value", "0.002")], 0, 2_000_000),
        (&[("min_value", "0.001"), ("max_value", "0.2")], 1_000_000, 200_000_000),
    ] {
        let found = known.ask("traces_spanmetrics_latency_count", range, limits);
        let ids = |series: &Found<'_>| -> BTreeSet<u64> {
            let spans = series.iter().flat_map(|(_, spans)| spans);
            spans.filter(|sent| (least..=most).contains(&sent.latency.unwrap_or(0))).map(|sent| sent.id).collect()
        };
        let n: usize = found.iter().map(|(_, spans)| spans.len()).sum();
        assert_eq!(ids(&found).len(), n, "{limits:?}");
        assert_eq!(ids(&found), ids(&count), "{limits:?}");
    }
    // The slowest of each series are those that are left, wherever in a slot the range begins.
    for start in 0..10 {
        let range = (range.0 + start * 1_000, range.1 + start * 500);
        let count = known.ask("traces_spanmetrics_calls_total", range, &[]);
        let one = known.ask("traces_spanmetrics_calls_total", range, &[("limit", "1")]);
        let slowest = |series: &Found<'_>| -> Vec<(String, Option<u64>)> {
            let of = |(labels, spans): &(BTreeMap<String, String>, Vec<&Sent>)| {
                (format!("{labels:?}"), spans.iter().filter_map(|sent| sent.latency).max())
            };
            series.iter().map(of).collect()
        };
        assert_eq!(slowest(&one), slowest(&count));
        assert!(one.iter().all(|(_, spans)| spans.len() == 1));
    }
}

#[test]
fn ex_05_quick_spans_are_found_among_many_slow_ones_of_their_slot() {
    let (server, first) = (TestServer::new(), an_hour_ago());
    let span = |no: u64| Sent {
        trace: no,
        id: no,
        parent: u64::MAX,
        namespace: "",
        service: "shop",
        name: "work".to_owned(),
        kind: 2,
        status: 0,
        start: first + if no <= 5 { 8 * SECOND } else { no * SECOND / 1_000 },
        latency: Some(if no <= 5 { SECOND / 200 } else { SECOND + no }),
        attributes: Vec::new(),
    };
    let spans: Vec<Sent> = (1..500).map(span).collect();
    send(&server, &spans);
    let mut known = Known::new(&server, &spans);
    let first = i64::try_from(first / 1_000_000).expect("small");
    let of = |found: Found<'_>| found.into_iter().flat_map(|(_, spans)| spans).map(|sent| sent.id).collect::<Vec<_>>();
    let late = (first + 5_000, first + 20_000);
    assert_eq!(of(known.ask("traces_spanmetrics_calls_total", late, &[])), [1, 2, 3, 4, 5]);
    assert_eq!(of(known.ask("traces_spanmetrics_calls_total", late, &[("limit", "1")])).len(), 1);
    let le = &bounds()[bound_of(SECOND / 200)];
    let q = format!("traces_spanmetrics_latency_bucket{{le=\"{le}\"}}");
    assert_eq!(of(known.ask(&q, (first, first + 20_000), &[])), [1, 2, 3, 4, 5]);
}

#[test]
fn ex_10_calls_of_the_service_graph_lead_to_their_spans() {
    let related = Related::new();
    let mut known = Known::new(&related.server, &related.spans);
    let range = (related.first, related.first + 1_900_000);
    for (name, kinds) in [
        ("total", &[2, 3, 5][..]),
        ("failed_total", &[2, 3, 5]),
        ("server_seconds", &[2, 3, 5]),
        ("server_seconds_bucket", &[2, 3, 5]),
        ("server_seconds_sum", &[2, 3, 5]),
        ("client_seconds", &[3, 4]),
        ("client_seconds_bucket", &[3, 4]),
    ] {
        let q = format!("sum by (client, server) (rate(traces_service_graph_request_{name}[5m]))");
        let found = known.ask(&q, range, &[]);
        let servers: BTreeSet<&str> = found.iter().map(|(labels, _)| labels["server"].as_str()).collect();
        let of_client = name.starts_with("client");
        let all: &[&str] = match name {
            // Nobody's call of the database fails.
            "failed_total" => &["bank", "cart", "email", "frontend"],
            _ if of_client => &["bank", "cart", "db-1", "email"],
            _ => &["bank", "cart", "db-1", "email", "frontend"],
        };
        assert_eq!(servers, all.iter().copied().collect(), "{q}");
        for (labels, spans) in found {
            assert!(spans.iter().all(|sent| kinds.contains(&sent.kind)), "{q}");
            let sends_spans = !["bank", "db-1"].contains(&labels["server"].as_str());
            let service = if of_client || !sends_spans { &labels["client"] } else { &labels["server"] };
            assert!(spans.iter().all(|sent| sent.service == service), "{q}: {labels:?}");
        }
    }
}

#[test]
fn ex_01_the_probe_in_milliseconds_and_what_is_not_there_are_empty() {
    let filled = Filled::new();
    let millis = (filled.first.to_string(), (filled.first + 1_800_000).to_string());
    for (query, start, end) in [
        ("test", millis.0.as_str(), millis.1.as_str()),
        ("traces_spanmetrics_calls_total", &millis.0, &millis.1),
        ("1 + 1", "0", "9999999999"),
        ("traces_spanmetrics_calls_total{service=\"nobody\"}", "0", "9999999999"),
        ("rate(up[5m])", "0", "9999999999"),
    ] {
        let path =
            format!("query_exemplars?query={}&start={start}&end={end}", query.replace(' ', "%20").replace('+', "%2B"));
        let answer = filled.server.get(&format!("/api/v1/{}", path.replace('"', "%22")));
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"success","data":[]}"#), "{query}");
    }
    let q = format!(
        "query=traces_spanmetrics_calls_total&start={}&end={}",
        secs(filled.first),
        secs(filled.first + 60_000)
    );
    let text = filled.server.get(&format!("/api/v1/query_exemplars?{q}")).text();
    let series = text.matches(r#"{"seriesLabels":{"__name__":"#).count();
    assert!(0 < series && text.matches(r#"},"exemplars":[{"labels":{"trace_id":"#).count() == series, "{text}");
}
