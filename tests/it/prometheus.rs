//! The Prometheus door against a count of the spans that were sent, in blocks, sealed partitions and the head.

mod entries;
mod exemplars;
mod left;
mod lists;
mod related;
pub(crate) mod sent;
mod staged;
mod untimed;

use std::collections::BTreeMap;

use self::sent::{
    Counted, Grid, Numbers, Over, Part, SECOND, SPAN_LABELS, Sent, an_hour_ago, answered, ask, assert_same, at_instant,
    bound_of, bounds, busy_server, counted, edges_nanos, expected, moved, send, spans,
};
use crate::support::TestServer;

/// Conditions, and what they mean.
type Meant = (&'static str, fn(&Sent) -> bool);

const CONDITIONS: [Meant; 8] = [
    ("", |_| true),
    (r#"service="cart""#, |sent| sent.service == "cart"),
    (r#"service=~"cart|st.+",span_name!="call 1""#, |sent| sent.service != "checkout" && sent.name != "call 1"),
    ("span_kind='SPAN_KIND_INTERNAL'", |sent| sent.kind < 2),
    (r#"status_code=~".*ERROR",service!~"c.*""#, |sent| sent.status == 2 && sent.service == "stock"),
    (r#"service=~"art""#, |_| false),
    (r#"nothing="",span_name=~`call \d`"#, |_| true),
    (r#"span_kind=~"SPAN_KIND_(SERVER|CLIENT)",status_code!="STATUS_CODE_OK""#, |sent| {
        (2..=3).contains(&sent.kind) && sent.status != 1
    }),
];

const FEW: Meant = (r#"service="cart",span_name="call 0",span_kind="SPAN_KIND_SERVER""#, |sent| {
    sent.service == "cart" && sent.name == "call 0" && sent.kind == 2
});

const GROUPS: [Option<&[&str]>; 6] = [
    None,
    Some(&[]),
    Some(&["service"]),
    Some(&["span_kind", "span_name"]),
    Some(&["service", "span_kind", "status_code"]),
    Some(&["nothing"]),
];

const METRICS: [(&str, Part); 5] = [
    ("traces_spanmetrics_calls_total", Part::Total),
    ("traces_spanmetrics_latency_count", Part::Count),
    ("traces_spanmetrics_latency_sum", Part::Sum),
    ("traces_spanmetrics_latency_bucket", Part::Buckets),
    ("traces_spanmetrics_latency", Part::Native),
];

/// A server that holds the spans.
struct Filled {
    server: TestServer,
    all: Vec<Sent>,
    /// When the first of them may start, in milliseconds.
    first: i64,
}

impl Filled {
    fn new() -> Self {
        let server = busy_server();
        let first = an_hour_ago();
        let all = spans(first);
        all.chunks(100).for_each(|some| send(&server, some));
        server.wait_for_sealed();
        Self { server, all, first: i64::try_from(first / 1_000_000).expect("before the year 292,278,994") }
    }

    fn meant(&self, is_meant: fn(&Sent) -> bool) -> Vec<Counted> {
        counted(self.all.iter().filter(|sent| is_meant(sent)))
    }

    /// How many spans that count start in `[from, to)`, seconds behind the first.
    fn between(&self, is_meant: fn(&Sent) -> bool, from: i64, to: i64) -> f64 {
        let nanos = |secs: i64| u64::try_from(self.first + secs * 1_000).expect("after 1970") * 1_000_000;
        let within = |one: &&Counted| (nanos(from)..nanos(to)).contains(&one.start);
        self.meant(is_meant).iter().filter(within).count() as f64
    }

    /// Across the half hour with a start before it, over its slots one by one, and an end at odd milliseconds.
    fn grids(&self) -> [Grid; 3] {
        [
            Grid { start: self.first - 63_000, step: 97_300, n: 24 },
            Grid { start: self.first + 400_000, step: 10_000, n: 16 },
            Grid { start: self.first + 1_789_999, step: 1, n: 3 },
        ]
    }
}

/// A query of one metric in one of the forms that mean the same.
fn query(metric: &str, conditions: &str, over: Over, by: Option<&[&str]>, part: Part, form: usize) -> String {
    let selected = match form % 3 {
        0 => format!("{metric}{{{conditions}}}"),
        1 => format!(r#"{{__name__="{metric}",{conditions}}}"#),
        _ => format!(r#"{{{conditions}{}__name__=~"{metric}"}}"#, if conditions.is_empty() { "" } else { "," }),
    };
    let over_time = match over {
        Over::Raw => selected,
        Over::Increase(range) => format!("increase({selected}[{range}ms])"),
        Over::Rate(range) => format!("rate({selected}[{range}ms])"),
    };
    let Some(by) = by else { return over_time };
    let le = if part == Part::Buckets { &["le"][..] } else { &[] };
    let names = [by, le].concat().join(", ");
    let others: Vec<&str> = SPAN_LABELS.into_iter().filter(|name| !by.contains(name)).collect();
    match form % 4 {
        0 => format!("sum by ({names}) ({over_time})"),
        1 => format!("sum({over_time}) by ({names})"),
        2 if !by.contains(&"nothing") => format!("SUM WITHOUT ({}) ({over_time})", others.join(",")),
        _ => format!("sum({over_time} and {over_time}) BY ({names})"),
    }
}

#[test]
fn prom_02_03_04_06_07_23_counters_and_histograms_count_what_was_sent_at_every_instant() {
    let mut filled = Filled::new();
    let overs = [
        Over::Raw,
        Over::Increase(10_000),
        Over::Rate(60_000),
        Over::Increase(95_500),
        Over::Rate(300_000),
        Over::Increase(3_600_000),
    ];
    for round in 0..2 {
        for (no, (metric, part)) in METRICS.into_iter().enumerate() {
            for (at, over) in overs.into_iter().enumerate() {
                for (of, by) in GROUPS.into_iter().enumerate() {
                    // Each meets each, but not all at once; after a restart others meet.
                    let form = no + at + of + 3 * round;
                    // All series with all their buckets would be a hundred thousand.
                    let is_apart = by.is_none() && part == Part::Buckets;
                    let (conditions, is_meant) = if is_apart { FEW } else { CONDITIONS[form % CONDITIONS.len()] };
                    let grid = filled.grids()[(form / 2) % 3];
                    let q = query(metric, conditions, over, by, part, form);
                    let all = filled.meant(is_meant);
                    let expected = expected(&all, (metric, part), over, by, &grid.instants());
                    let found = answered(&grid.ask(&filled.server, &q));
                    match over {
                        Over::Raw => assert_same(&found, &expected, &q),
                        Over::Increase(_) | Over::Rate(_) => assert_same(&moved(found), &moved(expected), &q),
                    }
                }
            }
        }
        filled.server.restart();
    }
}

#[test]
fn prom_04_06_07_an_instant_has_the_numbers_of_that_instant_of_a_range() {
    let filled = Filled::new();
    for (no, (metric, part)) in METRICS.into_iter().enumerate() {
        for (of, at) in [1, 9_999, 10_000, 600_000, 1_234_567, 2_000_000].into_iter().enumerate() {
            let at = filled.first + at;
            for over in [Over::Raw, Over::Increase(600_000)] {
                let (conditions, is_meant) = CONDITIONS[[0, 1, 2, 4][(no + of) % 4]];
                let q = query(metric, conditions, over, Some(&["service"]), part, no + of);
                let expected = expected(&filled.meant(is_meant), (metric, part), over, Some(&["service"]), &[at]);
                assert_same(&moved(answered(&at_instant(&filled.server, &q, at))), &moved(expected), &q);
            }
        }
    }
    // One series with all its bounds, by name and by their bound.
    let q = r#"traces_spanmetrics_latency_bucket{service="cart",span_name="call 0",span_kind="SPAN_KIND_INTERNAL",status_code="STATUS_CODE_UNSET"}"#;
    let at = filled.first + 2_000_000;
    let all = filled.meant(|sent| sent.service == "cart" && sent.name == "call 0" && sent.kind < 2 && sent.status == 0);
    let expected = expected(&all, ("traces_spanmetrics_latency_bucket", Part::Buckets), Over::Raw, None, &[at]);
    assert_eq!(expected.len(), 194);
    assert_same(&answered(&at_instant(&filled.server, q, at)), &expected, q);
    for (bound, n) in [("0.000009215", 1), ("0.016777215|\\\\+Inf", 2), ("5", 0)] {
        let q = q.replace("service", &format!("le=~\"{bound}\",service"));
        let found = answered(&at_instant(&filled.server, &q, at));
        let wanted: Vec<&str> = if n == 0 { Vec::new() } else { bound.split('|').collect() };
        let is_wanted =
            |labels: &str| wanted.iter().any(|le| labels.contains(&format!("le={},", le.replace("\\\\", ""))));
        let expected: Numbers = expected.clone().into_iter().filter(|(labels, _)| is_wanted(labels)).collect();
        assert_eq!(expected.len(), n);
        assert_same(&found, &expected, &q);
    }
}

#[test]
fn prom_03_offsets_fixed_instants_and_subqueries_see_the_same_counters() {
    let filled = Filled::new();
    let all: fn(&Sent) -> bool = |_| true;
    let start = filled.first / 1_000;
    let calls = "traces_spanmetrics_calls_total";
    let n = |from, to| filled.between(all, from, to);
    let timed = |from, to| filled.between(|sent| sent.latency.is_some(), from, to);
    let slots = |from: i64, to: i64| (from / 10..to / 10).map(|slot| n(slot * 10, slot * 10 + 10));
    let peak = (0..10).map(|at| n(300 + at * 60, 360 + at * 60)).fold(0.0, f64::max);
    let errors = |from, to| filled.between(|sent| sent.status == 2, from, to);
    let error = r#"{status_code="STATUS_CODE_ERROR"}"#;
    // At 900 s behind the first span.
    for (q, value) in [
        (format!("sum(increase({calls}[5m] offset 90s))"), n(510, 810)),
        (format!("sum(increase({calls}[5m] OFFSET -2m))"), n(720, 1_020)),
        (format!("sum(increase({calls}[1m] @ {}))", start + 125), n(60, 120)),
        (format!("sum({calls} @ {} offset 5s)", start + 125), n(0, 120)),
        (format!("sum({calls} @ end()) - sum({calls} offset 10m)"), n(300, 900)),
        (format!("max_over_time(sum(increase({calls}[1m]))[10m:1m])"), peak),
        (format!("sum_over_time(sum(increase({calls}[10s]))[5m:10s])"), n(600, 900)),
        (format!("count_over_time(sum({calls})[10m:30s])"), 20.0),
        (format!("max(sum by (service) ({calls}) or vector(0))"), {
            let of: [fn(&Sent) -> bool; 3] =
                [|sent| sent.service == "cart", |sent| sent.service == "checkout", |sent| sent.service == "stock"];
            of.into_iter().map(|is_meant| filled.between(is_meant, 0, 900)).fold(0.0, f64::max)
        }),
        (format!("sum(max_over_time({calls}[10s]))"), n(0, 900)),
        (format!("sum(rate({calls}{error}[5m])) / sum(rate({calls}[5m]))"), errors(600, 900) / n(600, 900)),
        ("sum(increase(traces_spanmetrics_latency_bucket{le='+Inf'}[1m]))".to_owned(), timed(840, 900)),
        ("histogram_count(sum(increase(traces_spanmetrics_latency[1m])))".to_owned(), timed(840, 900)),
        (format!("changes(sum({calls})[5m:10s])"), slots(610, 900).filter(|n| 0.0 < *n).count() as f64),
        (format!("sum(increase({calls}[1m])) == bool {}", n(840, 900)), 1.0),
        (format!("count(count by (service) ({calls}))"), 3.0),
        (format!("topk(1, sum by (service) (increase({calls}[15m]))) * 0 + 1"), 1.0),
    ] {
        let expected = BTreeMap::from([((filled.first + 900_000), value)]);
        let found = answered(&at_instant(&filled.server, &q, filled.first + 900_000));
        assert_eq!(found.len(), 1, "{q}: {found:?}");
        let (labels, _) = found.iter().next().expect("one series");
        assert_same(&found, &Numbers::from([(labels.clone(), expected)]), &q);
    }
}

/// The latencies that may be called the quantile: two, where it lies between them.
fn exact(mut latencies: Vec<u64>, quantile: f64) -> [u64; 2] {
    latencies.sort_unstable();
    let rank = quantile * latencies.len() as f64;
    [rank - 1e-6, rank + 1e-6].map(|rank| latencies[(rank.ceil().max(1.0) as usize).min(latencies.len()) - 1])
}

#[test]
fn prom_07_sg_11_12_quantiles_are_those_of_the_spans() {
    let filled = Filled::new();
    let at = filled.first + 1_500_000;
    let upper = |bound: usize| edges_nanos().get(bound).map_or(f64::INFINITY, |edge| (*edge - 1) as f64 / 1e9);
    for quantile in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
        for (range, from) in [("5m", 1_200), ("20m", 300)] {
            let native = format!(
                "histogram_quantile({quantile}, sum(rate(traces_spanmetrics_latency[{range}])) by (service, le))"
            );
            let classic = format!(
                "histogram_quantile({quantile}, sum by (le, service) (rate(traces_spanmetrics_latency_bucket[{range}])))"
            );
            let native = answered(&at_instant(&filled.server, &native, at));
            let classic = answered(&at_instant(&filled.server, &classic, at));
            assert_eq!((native.len(), classic.len()), (3, 3));
            for service in ["cart", "checkout", "stock"] {
                let first = u64::try_from(filled.first).expect("after 1970") * 1_000_000;
                let window = first + from * SECOND..first + 1_500 * SECOND;
                let of = filled.all.iter().filter(|sent| sent.service == service && window.contains(&sent.start));
                let [low, high] = exact(of.filter_map(|sent| sent.latency).collect(), quantile);
                let found = native[&format!("service={service}")][&at];
                let slack = |latency: u64| (latency as f64 / 1e12).max(511e-9);
                let is_within = low as f64 / 1e9 - slack(low) <= found && found <= high as f64 / 1e9 + slack(high);
                assert!(is_within, "native {quantile} of {service}: {found} for {low}..{high} ns");
                // What lies beyond the last finite bound is shown at it.
                let found = classic[&format!("service={service}")][&at];
                let lower = bound_of(low).checked_sub(1).map_or(0.0, upper);
                let is_within = lower <= found && found <= upper(bound_of(high));
                assert!(is_within, "classic {quantile} of {service}: {found} for {low}..{high} ns");
            }
        }
    }
}

#[test]
fn prom_22_the_bounds_are_the_same_194_wherever_they_are_written() {
    let filled = Filled::new();
    let bounds = bounds();
    assert_eq!((bounds.len(), bounds[0].as_str(), bounds[192].as_str()), (194, "0.000008191", "137.438953471"));
    let answer = filled.grids()[0].ask(&filled.server, "sum by (le) (rate(traces_spanmetrics_latency_bucket[5m]))");
    let found = answered(&answer);
    let mut keys: Vec<String> = bounds.iter().map(|le| format!("le={le}")).collect();
    keys.sort();
    assert_eq!(found.keys().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    let instants = |points: &BTreeMap<i64, f64>| points.keys().copied().collect::<Vec<_>>();
    let first = instants(&found["le=+Inf"]);
    assert!(found.values().all(|points| instants(points) == first), "one time axis for all");
    for at in first {
        let counts: Vec<f64> = bounds.iter().map(|le| found[&format!("le={le}")][&at]).collect();
        assert!(counts.is_sorted(), "cumulative: {counts:?}");
    }
    let range = [("match[]", "traces_spanmetrics_latency_bucket{service='cart'}")];
    let series = ask(&filled.server, "series", &range);
    let of = |series: &serde_json::Value| series["le"].as_str().expect("a bound").to_owned();
    let mut listed: Vec<String> = series["data"].as_array().expect("series").iter().map(of).collect();
    listed.sort();
    listed.dedup();
    let values = filled.server.json("/api/v1/label/le/values?match[]=traces_spanmetrics_latency_bucket");
    let mut sorted = bounds.clone();
    sorted.sort();
    assert_eq!((&listed, &values["data"]), (&sorted, &serde_json::json!(sorted)));
}

#[test]
fn counters_never_fall_while_spans_come_and_blocks_are_written() {
    let server = busy_server();
    let first = an_hour_ago();
    let all = spans(first);
    let start = i64::try_from(first / 1_000_000).expect("small");
    let grid = Grid { start, step: 30_000, n: 64 };
    let mut before = Numbers::new();
    for (no, some) in all.chunks(130).enumerate() {
        send(&server, some);
        let found = answered(&grid.ask(&server, "sum(traces_spanmetrics_calls_total)"));
        let sent = counted(&all[..(no * 130 + some.len())]);
        let expected = expected(&sent, ("", Part::Total), Over::Raw, Some(&[]), &grid.instants());
        assert_same(&found, &expected, "what was answered with success is counted");
        let points = &found[""];
        assert!(points.values().is_sorted(), "over time");
        let earlier = before.get("").into_iter().flatten();
        assert!(earlier.into_iter().all(|(at, value)| *value <= points[at]), "from answer to answer");
        before = found;
    }
}
