//! Entry spans by where they ran, against a count of the spans that were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use serde_json::json;
use spandrel::model::{Conventions, MetricDimension};
use spandrel::query::promql::catalogue::Subject;
use spandrel::query::promql::totals::Totals;

use super::exemplars::Known;
use super::sent::{
    Counted, Grid, Numbers, Over, Part, SECOND, Sent, an_hour_ago, answered, ask, assert_same, expected, labels_text,
    moved, spans, text,
};
use super::staged::{HOUR, START, Staged, span};
use crate::support::TestServer;

/// Those that are offered, and their labels. Version, which spans have as well, is not.
const OFFERED: [(&str, &str); 3] = [
    ("cloud.availability_zone", "cloud_availability_zone"),
    ("host.name", "host_name"),
    ("deployment.environment.name", "deployment_environment_name"),
];
const METRICS: [(&str, Part); 5] = [
    ("traces_spanmetrics_entries_total", Part::Total),
    ("traces_spanmetrics_entries_latency_count", Part::Count),
    ("traces_spanmetrics_entries_latency_sum", Part::Sum),
    ("traces_spanmetrics_entries_latency_bucket", Part::Buckets),
    ("traces_spanmetrics_entries_latency", Part::Native),
];

fn conventions() -> Arc<Conventions> {
    let offered = OFFERED.map(|(attribute, _)| MetricDimension::of(attribute.to_owned()));
    Arc::new(Conventions { metric_dimensions: offered.to_vec(), ..Conventions::default() })
}

/// Where a span ran. Hosts lie in zones; of stock the zone is not known; the environment is that of all.
fn places(sent: &Sent) -> Vec<(&'static str, String)> {
    let host = sent.id % 5;
    let mut places = vec![
        ("host.name", format!("host-{host}")),
        ("deployment.environment.name", "live".to_owned()),
        ("service.version", format!("1.{}", sent.id % 2)),
    ];
    if sent.service != "stock" {
        places.push(("cloud.availability_zone", format!("eu-{}", host % 2)));
    }
    places
}

fn message(sent: &Sent) -> ResourceSpans {
    let mut message = sent.message();
    let resource = message.resource.as_mut().expect("it has one");
    resource.attributes.extend(places(sent).iter().map(|(key, value)| text(key, value)));
    message
}

fn request(spans: &[Sent]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: spans.iter().map(message).collect() }
}

/// What counts: timed SERVER and CONSUMER spans, once for each place that is offered.
fn counted<'a>(spans: impl IntoIterator<Item = &'a Sent>) -> Vec<Counted> {
    let mut all = Vec::new();
    for sent in spans {
        if ![2, 5].contains(&sent.kind) || sent.latency.is_none() {
            continue;
        }
        for (attribute, value) in places(sent) {
            let Some((_, label)) = OFFERED.iter().find(|(offered, _)| *offered == attribute) else { continue };
            let status = if sent.status == 2 { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" };
            let labels =
                [("service", sent.service.to_owned()), ("status_code", status.to_owned()), (*label, value.clone())];
            all.push(Counted { labels: labels.into(), start: sent.start, latency: sent.latency });
        }
    }
    all
}

/// A server with blocks, sealed partitions and a head, and what is in it.
fn filled() -> (TestServer, Vec<Sent>, i64) {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 300;
        config.ingest.partition_bytes_max = 20_000;
        config.store.conventions = conventions();
    });
    let first = an_hour_ago();
    let mut all = spans(first);
    for sent in &mut all {
        sent.status = sent.status / 2 * 2;
    }
    // The last ones make no block.
    let (most, few) = all.split_at(all.len() - 50);
    most.chunks(100).for_each(|some| server.deliver(&request(some)));
    server.wait_for_sealed();
    server.deliver(&request(few));
    (server, all, i64::try_from(first / 1_000_000).expect("small"))
}

type Takes = (&'static str, fn(&Counted) -> bool);

const CONDITIONS: [Takes; 5] = [
    ("", |_| true),
    (r#"cloud_availability_zone!="""#, |one| one.labels.contains_key("cloud_availability_zone")),
    (r#"cloud_availability_zone="eu-1",service=~"c.+""#, |one| {
        one.labels.get("cloud_availability_zone").is_some_and(|zone| zone == "eu-1")
    }),
    (r#"host_name=~"host-[13]",status_code="STATUS_CODE_ERROR""#, |one| {
        let host = one.labels.get("host_name");
        host.is_some_and(|host| host == "host-1" || host == "host-3") && one.labels["status_code"].ends_with("ERROR")
    }),
    (r#"service_version!="""#, |_| false),
];

const GROUPS: [Option<&[&str]>; 5] = [
    None,
    Some(&["cloud_availability_zone"]),
    Some(&["service", "status_code"]),
    Some(&["host_name", "deployment_environment_name"]),
    Some(&[]),
];

#[test]
fn entry_spans_are_counted_by_where_they_ran() {
    let (mut server, all, first) = filled();
    let grid = Grid { start: first - 63_000, step: 197_300, n: 12 };
    for round in 0..2 {
        for (metric, part) in METRICS {
            for (conditions, takes) in CONDITIONS {
                for by in GROUPS {
                    // All series with all their buckets would be ten thousands.
                    if part == Part::Buckets && by.is_none() {
                        continue;
                    }
                    for over in [Over::Raw, Over::Increase(300_000)] {
                        let selected = match over {
                            Over::Raw => format!("{metric}{{{conditions}}}"),
                            _ => format!("increase({metric}{{{conditions}}}[5m])"),
                        };
                        let le = if part == Part::Buckets { "le," } else { "" };
                        let q = by.map_or(selected.clone(), |by| format!("sum by ({le}{}) ({selected})", by.join(",")));
                        let wanted: Vec<Counted> = counted(&all).into_iter().filter(takes).collect();
                        let expected = expected(&wanted, (metric, part), over, by, &grid.instants());
                        let found = answered(&grid.ask(&server, &q));
                        assert_same(&moved(found), &moved(expected), &format!("{q}, round {round}"));
                    }
                }
            }
        }
        server.restart();
    }
}

#[test]
fn metrics_of_entry_spans_are_listed_with_the_places_that_are_offered() {
    let (server, _, _) = filled();
    let data = |path: &str| server.json(&format!("/api/v1/{path}"))["data"].clone();
    let labels: Vec<&str> = OFFERED.iter().map(|(_, label)| *label).collect();
    let of = |metric: &str, more: &[&str]| {
        let names: BTreeSet<&str> =
            [&["__name__", "service", "status_code"], &*labels, more].concat().into_iter().collect();
        assert_eq!(data(&format!("labels?match[]={metric}")), json!(names), "{metric}");
    };
    of("traces_spanmetrics_entries_total", &[]);
    of("traces_spanmetrics_entries_latency_bucket", &["le"]);
    assert_eq!(data("label/cloud_availability_zone/values"), json!(["eu-0", "eu-1"]));
    assert_eq!(data("label/host_name/values?match[]=traces_spanmetrics_latency"), json!([]));
    assert_eq!(data("label/service_version/values"), json!([]));
    let metadata = data("metadata");
    assert_eq!(metadata.as_object().map(serde_json::Map::len), Some(20));
    assert_eq!(metadata["traces_spanmetrics_entries_latency"][0]["type"], "histogram");
    let series = [("match[]", r#"traces_spanmetrics_entries_total{service="stock",host_name=""}"#)];
    let found = ask(&server, "series", &series)["data"].clone();
    let live = |status: &str| json!({ "__name__": "traces_spanmetrics_entries_total", "service": "stock", "status_code": status, "deployment_environment_name": "live" });
    assert_eq!(found, json!([live("STATUS_CODE_ERROR"), live("STATUS_CODE_UNSET")]));
}

#[test]
fn exemplars_of_entry_spans_ran_where_their_series_says_and_open() {
    let (server, all, first) = filled();
    let mut known = Known::new(&server, &all);
    for (metric, _) in METRICS {
        for label in ["cloud_availability_zone", "deployment_environment_name"] {
            let q = format!(r#"sum by (le) (rate({metric}{{{label}!=""}}[1m]))"#);
            let found = known.ask(&q, (first, first + 1_800_000), &[]);
            assert!(!found.is_empty(), "{q}");
            for (labels, spans) in found {
                let (attribute, _) = OFFERED.iter().find(|(_, known)| *known == label).expect("it is offered");
                let ran = |sent: &&Sent| places(sent).contains(&(*attribute, labels[label].clone()));
                assert!(spans.iter().all(ran), "{q} {labels:?}");
            }
        }
    }
}

#[test]
fn without_the_setting_there_are_no_metrics_of_entry_spans() {
    let server = TestServer::new();
    let all: Vec<Sent> = (1..=3).map(|no| Sent { start: an_hour_ago(), ..span(no, Some(SECOND)) }).collect();
    server.deliver(&request(&all));
    assert_eq!(server.json("/api/v1/metadata")["data"].as_object().map(serde_json::Map::len), Some(15));
    assert!(!server.get("/metrics/spans").text().contains("entries"));
    for path in ["labels", "label/__name__/values", "query?query=traces_spanmetrics_entries_total"] {
        let answer = server.get(&format!("/api/v1/{path}"));
        let is_there = ["entries", "host_name"].iter().any(|name| answer.text().contains(name));
        assert!(answer.status == 200 && !is_there, "{path}: {}", answer.text());
    }
}

#[test]
fn what_is_fed_to_a_prometheus_has_entry_spans_from_the_head_a_block_and_roll_ups() {
    let mut staged = Staged::new(START + HOUR, |config| config.conventions = conventions());
    let kinds = [2, 3, 5, 2];
    let sent = |no: u64| Sent {
        start: START + no * SECOND,
        kind: kinds[no as usize % 4],
        status: i32::try_from(no % 3).expect("small"),
        ..span(no, (!no.is_multiple_of(7)).then_some(no * SECOND / 100))
    };
    let all: Vec<Sent> = (1..=60).map(sent).collect();
    let mut expected: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for one in counted(&all) {
        let [count, sum] = expected.entry(labels_text(one.labels)).or_default();
        (*count, *sum) = (*count + 1, *sum + one.latency.expect("it counts"));
    }
    staged.push_request(&request(&all));
    let start = i64::try_from(START / 1_000_000).expect("small");
    for stage in ["in the head", "in a block", "sealed"] {
        match stage {
            "in a block" => staged.block(),
            "sealed" => staged.seal(),
            _ => {}
        }
        let mut totals = Totals::since(start);
        staged.query.advance(&mut totals, start + 3_600_000).expect("it can be counted");
        let mut found: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for ((subject, labels), total) in &totals.series {
            if *subject == Subject::Entries {
                assert_eq!((total.count, total.exemplar.is_some()), (total.timed, true), "{stage}");
                let sum = u64::try_from(total.sum_ns).expect("small");
                let _new = found.insert(labels_text(labels.iter()), [total.count, sum]);
            }
        }
        assert_eq!(found, expected, "{stage}");
    }
    let q = "sum by (host_name) (traces_spanmetrics_entries_total)";
    let at = start + 3_600_000;
    let found: Numbers = staged.numbers(q, (at, at, 1));
    assert_eq!(found.len(), 6, "five hosts, and what has another place for a label: {found:?}");
}
