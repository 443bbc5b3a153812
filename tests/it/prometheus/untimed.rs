//! Spans without a latency: they are counted, and no histogram has them.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use spandrel::model::{DurationNanos, UnixNanos};
use spandrel::query::promql::catalogue::Subject;
use spandrel::query::promql::exemplars::ExemplarQuestion;
use spandrel::query::promql::listing::ListingQuestion;
use spandrel::query::promql::totals::Totals;

use super::sent::{Over, Part, SECOND, Sent, assert_same, counted, expected, labels_text, moved};
use super::staged::{HOUR, START, Staged, span};

const METRICS: [(&str, Part); 3] = [
    ("traces_spanmetrics_calls_total", Part::Total),
    ("traces_spanmetrics_latency_count", Part::Count),
    ("traces_spanmetrics_latency_sum", Part::Sum),
];

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).expect("small")
}

/// Timed and untimed spans of one series, and a series that has untimed ones alone.
fn spans() -> Vec<Sent> {
    let at = |no: u64| START + no * 7 * SECOND;
    let timed = (1..=20).map(|no| Sent { start: at(no), ..span(no, Some(no * SECOND / 50)) });
    let untimed = (21..=35).map(|no| Sent { start: at(no - 15), ..span(no, None) });
    let alone = (36..=40).map(|no| Sent { start: at(no - 30), name: "broken".to_owned(), status: 2, ..span(no, None) });
    timed.chain(untimed).chain(alone).collect()
}

/// What PromQL says of them is what was sent.
#[track_caller]
fn check(staged: &Staged, all: &[Sent], stage: &str) {
    let (start, step, n) = (millis(START) - 10_000, 20_000, 400);
    let instants: Vec<i64> = (0..n).map(|no| start + no * step).collect();
    for (metric, part) in METRICS {
        for (by, sum) in [(None, ""), (Some(&["status_code"][..]), "sum by (status_code) ")] {
            for over in [Over::Raw, Over::Increase(60_000)] {
                let selected = if matches!(over, Over::Raw) { metric } else { &format!("increase({metric}[1m])") };
                let (q, grid) = (format!("{sum}({selected})"), (start, start + (n - 1) * step, step));
                let expected = expected(&counted(all), (metric, part), over, by, &instants);
                assert_same(&moved(staged.numbers(&q, grid)), &moved(expected), &format!("{stage}: {q}"));
            }
        }
    }
    // Alone at its instant, far behind the others.
    let at = millis(START + HOUR) + 10_000;
    let came = staged.numbers("sum by (span_name) (increase(traces_spanmetrics_calls_total[20s]))", (at, at, 1));
    assert_eq!(moved(came)["span_name=nowhere"], BTreeMap::from([(at, 1.0)]), "{stage}");
    check_lists(staged, all, stage);
    check_exemplars(staged, all, stage);
}

#[track_caller]
fn check_lists(staged: &Staged, all: &[Sent], stage: &str) {
    for (metric, part) in METRICS {
        let selectors = vec![metric.parse().expect("a selector")];
        let question = ListingQuestion { selectors, start: 0, end: millis(START + 2 * HOUR), most: 100 };
        let found = staged.query.prom_series(&question).expect("a list").rows;
        let found: BTreeSet<String> = found.iter().map(|labels| labels.get("span_name").to_owned()).collect();
        let is_there = |sent: &&Sent| part == Part::Total || sent.latency.is_some();
        let expected: BTreeSet<String> = all.iter().filter(is_there).map(|sent| sent.name.clone()).collect();
        assert_eq!(found, expected, "{stage}: {metric}");
    }
}

/// Exemplars lead to spans with a latency.
#[track_caller]
fn check_exemplars(staged: &Staged, all: &[Sent], stage: &str) {
    let question = ExemplarQuestion {
        query: METRICS[0].0.parse().expect("it is PromQL"),
        start: millis(START),
        end: millis(START + 2 * HOUR),
        latency_min: DurationNanos(0),
        latency_max: DurationNanos(u64::MAX),
        most: 100,
    };
    let (found, _) = staged.query.prom_exemplars(&question).expect("an answer");
    let timed: BTreeSet<u64> = all.iter().filter(|sent| sent.latency.is_some()).map(|sent| sent.id).collect();
    let ids = found.iter().flat_map(|one| &one.exemplars).map(|one| u64::from_be_bytes(one.span_id.0));
    let ids: BTreeSet<u64> = ids.collect();
    assert!(!ids.is_empty() && ids.is_subset(&timed), "{stage}: {ids:?}");
}

#[test]
fn spans_without_a_latency_count_in_calls_total_alone_wherever_they_are_stored() {
    let mut staged = Staged::new(START + HOUR, |config| {
        config.retention = Some(DurationNanos(3 * HOUR));
        config.rollup_retention = Some(DurationNanos(90 * 24 * HOUR));
    });
    let mut all = spans();
    // Without any time a span is counted when it came, and a partition ends no earlier.
    all.push(Sent { start: START + HOUR, name: "nowhere".to_owned(), ..span(41, None) });
    let mut request = ExportTraceServiceRequest { resource_spans: all.iter().map(Sent::message).collect() };
    let last = &mut request.resource_spans[40].scope_spans[0].spans[0];
    (last.start_time_unix_nano, last.end_time_unix_nano) = (0, 0);
    staged.push_request(&request);
    check(&staged, &all, "in the head");
    staged.block();
    check(&staged, &all, "in a block");
    // Of two blocks the slots are merged.
    let more: Vec<Sent> = all[..40].iter().map(|sent| Sent { id: sent.id + 102, ..sent.clone() }).collect();
    staged.push(&more);
    all.extend(more);
    check(&staged, &all, "in a block and the head");
    staged.block();
    staged.seal();
    check(&staged, &all, "sealed");
    staged.leave(UnixNanos(START + 24 * HOUR));
    let day = (millis(START + 24 * HOUR), millis(START + 24 * HOUR), 1);
    let left = staged.numbers("sum by (span_name) (traces_spanmetrics_calls_total)", day);
    let count = |name: &str| left[&format!("span_name={name}")][&day.0];
    assert_eq!((count("work"), count("broken"), count("nowhere")), (70.0, 10.0, 1.0), "roll-ups are left");
}

#[test]
fn what_is_fed_to_a_prometheus_counts_spans_without_a_latency_beside_the_histogram() {
    let mut staged = Staged::new(START + HOUR, |_| {});
    staged.push(&spans());
    for stage in ["in the head", "in a block"] {
        let mut totals = Totals::since(millis(START));
        staged.query.advance(&mut totals, millis(START + HOUR)).expect("it can be counted");
        let mut found: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for ((subject, labels), total) in &totals.series {
            if *subject == Subject::Spans {
                let held = total.buckets().last().map_or(0, |bucket| bucket.count);
                let _new = found.insert(labels_text(labels.iter()), [total.count, total.timed, held]);
            }
        }
        let labels = |name: &str, status: &str| {
            format!("service=shop,span_kind=SPAN_KIND_SERVER,span_name={name},status_code=STATUS_CODE_{status}")
        };
        let expected =
            BTreeMap::from([(labels("work", "UNSET"), [35, 20, 20]), (labels("broken", "ERROR"), [5, 0, 0])]);
        assert_eq!(found, expected, "{stage}");
        if stage == "in the head" {
            staged.block();
        }
    }
}
