//! Which place is slow: a zone, a node or a version is planted among spans that are alike otherwise, and has to come first.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use crate::support::{Random, TestServer, now};

const SEEDS: u64 = 200;
/// Spans of each seed, which is a service of its own.
const SPANS: u64 = 600;
/// Of 200 seeds so many must be found.
const FOUND_MIN: usize = 198;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Where a span ran: a node belongs to one zone, versions are anywhere.
#[derive(Clone, Copy, PartialEq)]
struct Where {
    zone: u64,
    node: u64,
    version: u64,
}

impl Where {
    fn any(random: &mut Random) -> Self {
        // Zone 0 has four times the traffic of the others: a large group is not a slow one.
        let zone = [0, 0, 0, 0, 1, 2][usize::try_from(random.below(6)).expect("small")];
        Self { zone, node: zone * 3 + random.below(3), version: random.below(3) }
    }

    fn labels(self) -> [(&'static str, String); 3] {
        [
            ("cloud.availability_zone", format!("eu-{}", self.zone)),
            ("k8s.node.name", format!("node-{}", self.node)),
            ("service.version", format!("1.{}", self.version)),
        ]
    }
}

fn spans_of(service: &str, seed: u64) -> (ExportTraceServiceRequest, (&'static str, String)) {
    let mut random = Random(seed * 7_919 + 1);
    let slow = Where::any(&mut random);
    let planted = slow.labels()[usize::try_from(seed % 3).expect("small")].clone();
    let first = now().0 - 3_600_000_000_000;
    let resource_spans = (0..SPANS).map(|no| {
        let place = Where::any(&mut random);
        // Long-tailed: one in 30 takes ten times as long wherever it runs.
        let mut duration = 10_000_000 + random.below(10_000_000) * (1 + 9 * u64::from(random.below(30) == 0));
        if place.labels().contains(&planted) {
            duration += duration * 3 / 2;
        }
        let start = first + random.below(3_000) * 1_000_000_000;
        let id = seed * SPANS + no + 1;
        let span = Span {
            trace_id: u128::from(id).to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            name: format!("call {}", no % 3),
            kind: 2,
            start_time_unix_nano: start,
            end_time_unix_nano: start + duration,
            ..Span::default()
        };
        let mut attributes = vec![text("service.name", service)];
        attributes.extend(place.labels().iter().map(|(key, value)| text(key, value)));
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
    });
    (ExportTraceServiceRequest { resource_spans: resource_spans.collect() }, planted)
}

#[test]
fn a_planted_slow_zone_node_or_version_comes_first_of_all_places() {
    let server = TestServer::with(|config| {
        config.ingest.checkpoint_spans = 20_000;
        config.ingest.partition_bytes_max = 1_500_000;
    });
    let mut planted = Vec::new();
    for seed in 0..SEEDS {
        let (request, slow) = spans_of(&format!("service-{seed}"), seed);
        server.deliver(&request);
        planted.push(slow);
    }
    let mut missed = Vec::new();
    for (seed, (key, value)) in planted.iter().enumerate() {
        let path = format!("/spandrel/v1/percentile?service=service-{seed}&start=-2h&q=0.9&exemplars=1&by=peel&top=1");
        let answer = server.json(&path);
        assert_eq!(answer["count"], SPANS, "{answer}");
        let first = &answer["groups"][0];
        if first["labels"][*key] != *value {
            missed.push(format!("{seed}: {key}={value}, not {}", first["labels"]));
        }
        let exemplar = &first["quantiles"][0]["exemplars"][0];
        let label = first["labels"].as_object().and_then(|labels| labels.iter().next()).expect("a label");
        assert_eq!(exemplar["attributes"][label.0], *label.1, "the trace is of that group: {first}");
        assert_eq!(exemplar["in_bucket"], true, "{first}");
    }
    assert!(FOUND_MIN <= planted.len() - missed.len(), "{missed:?}");
}
