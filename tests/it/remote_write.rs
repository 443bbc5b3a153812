//! Remote write into a receiver that answers as it is told: what of the spans arrives, in which version, and what happens when it
//! is not taken.
//!
//! The spans lie ten minutes back and so does the place from which remote write goes on: the edges in between are written at once,
//! and no test waits for the clock.

mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use spandrel::feed::{Histograms, RemoteWrite, Version};

use self::receiver::{Count, Labels, Receiver, Reply, Request, Series, ZeroCount, all_written, written};
use crate::support::{TestServer, now};

const N_SPANS: u64 = 120;
/// Between two edges.
const STEP: i64 = 30_000;
const CALLS: &str = "traces_spanmetrics_calls_total";
const LATENCY: &str = "traces_spanmetrics_latency";

/// How the next start of the server feeds.
#[derive(Clone)]
struct Plan {
    settings: RemoteWrite,
    /// Where it goes on; `None` leaves that as it is.
    from: Option<i64>,
}

/// A server with spans.
struct Fed {
    server: TestServer,
    plan: Arc<Mutex<Option<Plan>>>,
    /// An edge before all of them.
    since: i64,
    /// The file that says how far it came.
    position: PathBuf,
}

/// 3 ms, 6 ms, ..
fn latency(no: u64) -> u64 {
    (no + 1) * 3_000_000
}

fn latencies() -> impl Iterator<Item = u64> {
    (0..N_SPANS).map(latency)
}

/// They start one second after another; every fifth failed.
fn spans(since: i64, n: u64, name: fn(u64) -> String) -> ExportTraceServiceRequest {
    let first = u64::try_from(since + STEP).expect("after 1970") * 1_000_000;
    let span = |no: u64| Span {
        trace_id: (1 + u128::from(no)).to_be_bytes().to_vec(),
        span_id: (1 + no).to_be_bytes().to_vec(),
        name: name(no),
        kind: 2,
        start_time_unix_nano: first + no * 1_000_000_000,
        end_time_unix_nano: first + no * 1_000_000_000 + latency(no),
        status: Some(Status { code: if no.is_multiple_of(5) { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..n).map(span).collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

impl Fed {
    /// It does not feed yet.
    fn new() -> Self {
        Self::of(N_SPANS, |_| "GET \"/\"".to_owned())
    }

    fn of(n: u64, name: fn(u64) -> String) -> Self {
        let plan = Arc::new(Mutex::new(None::<Plan>));
        let at = Arc::new(Mutex::new(PathBuf::new()));
        let (of_start, told) = (Arc::clone(&plan), Arc::clone(&at));
        let server = TestServer::with(move |config| {
            let position = config.store.data_dir.join("remote-write");
            if let Some(plan) = of_start.lock().expect("no panic").clone() {
                if let Some(from) = plan.from {
                    std::fs::write(&position, format!("spandrel-remote-write 1\n{from}\n")).expect("it can be written");
                }
                config.remote_write = Some(plan.settings);
            }
            *told.lock().expect("no panic") = position;
        });
        let since = (i64::try_from(now().0 / 1_000_000).expect("before 292,278,994") - 600_000) / STEP * STEP;
        server.deliver(&spans(since, n, name));
        let position = at.lock().expect("no panic").clone();
        Self { server, plan, since, position }
    }

    /// Begins anew.
    fn feed(&mut self, receiver: &Receiver, version: Version, histograms: Histograms) {
        self.go_on(receiver, version, histograms, Some(self.since));
    }

    fn go_on(&mut self, receiver: &Receiver, version: Version, histograms: Histograms, from: Option<i64>) {
        let settings = RemoteWrite { url: receiver.url.clone(), token_file: None, version, histograms };
        self.restart(settings, from);
    }

    fn restart(&mut self, settings: RemoteWrite, from: Option<i64>) {
        *self.plan.lock().expect("no panic") = Some(Plan { settings, from });
        self.server.restart();
    }
}

fn taken(_: &Request) -> Reply {
    (204, String::new(), "")
}

fn has_all(request: &Request) -> bool {
    request.sum(CALLS) == N_SPANS
}

/// The edge at which all spans are counted, begun anew for it.
fn last_edge(version: Version, histograms: Histograms, fed: &mut Fed) -> Request {
    let receiver = Receiver::new(if version == Version::One { taken } else { all_written });
    fed.feed(&receiver, version, histograms);
    receiver.first(has_all)
}

#[test]
fn counters_and_classic_buckets_are_those_of_the_spans() {
    let request = last_edge(Version::One, Histograms::Classic, &mut Fed::new());
    assert_eq!(request.version(), "1");
    assert!(request.series.iter().all(|one| one.histogram.is_none()));
    let failed = request.of(CALLS).filter(|one| one.labels["status_code"] == "STATUS_CODE_ERROR");
    assert_eq!(failed.map(|one| one.sample.expect("a counter").value as u64).sum::<u64>(), N_SPANS / 5);
    assert_eq!(request.sum("traces_service_graph_request_total"), N_SPANS);
    assert_eq!(request.sum("traces_service_graph_request_failed_total"), N_SPANS / 5);
    assert_eq!(request.sum("traces_spanmetrics_latency_count"), N_SPANS);
    let secs = latencies().sum::<u64>() as f64 / 1e9;
    let sum = request.of("traces_spanmetrics_latency_sum").map(|one| one.sample.expect("a counter").value).sum::<f64>();
    assert!((sum - secs).abs() < 1e-3 * secs);
    let mut bounds = BTreeMap::<String, u64>::new();
    for one in request.of("traces_spanmetrics_latency_bucket") {
        *bounds.entry(one.labels["le"].clone()).or_default() += one.sample.expect("a counter").value as u64;
    }
    assert_eq!(bounds.len(), 26);
    for (bound, count) in bounds {
        let up_to = bound.parse::<f64>().expect("a number or +Inf");
        assert_eq!(count, latencies().filter(|latency| *latency as f64 / 1e9 <= up_to).count() as u64, "le={bound}");
    }
}

#[test]
fn native_histograms_hold_each_span_in_the_bucket_of_its_latency_and_replace_the_classic_ones() {
    let request = last_edge(Version::One, Histograms::Native, &mut Fed::new());
    assert!(request.series.iter().all(|one| !one.labels.contains_key("le") && !one.name().ends_with("_sum")));
    let (mut buckets, mut sum) = (BTreeMap::<i32, u64>::new(), 0.0);
    for one in request.of(LATENCY) {
        let histogram = one.histogram.as_ref().expect("a native one");
        assert_eq!((histogram.schema, histogram.reset_hint), (3, 0));
        assert!(histogram.zero_threshold == 0.0 && histogram.zero_count == Some(ZeroCount::Int(0)));
        let here = histogram.buckets();
        assert_eq!(histogram.count, Some(Count::Int(here.values().sum())));
        for (index, count) in here {
            *buckets.entry(index).or_default() += count;
        }
        sum += histogram.sum;
    }
    assert_eq!(buckets.values().sum::<u64>(), N_SPANS);
    let secs = latencies().sum::<u64>() as f64 / 1e9;
    assert!((sum - secs).abs() < 1e-3 * secs);
    // A latency within 0.1 % of an edge may be in the bucket beside it.
    for index in buckets.keys() {
        let edge = |index: i32| 2_f64.powf(f64::from(index) / 8.0);
        let cumulative = buckets.range(..=index).map(|(_, count)| count).sum::<u64>() as usize;
        let up_to = |secs: f64| latencies().filter(|latency| *latency as f64 / 1e9 <= secs).count();
        assert!((up_to(edge(*index) * 0.999)..=up_to(edge(*index) * 1.001)).contains(&cumulative), "bucket {index}");
    }
    for name in ["traces_service_graph_request_server_seconds", "traces_service_graph_request_client_seconds"] {
        assert!(request.of(name).all(|one| one.histogram.is_some()));
    }
}

/// All but what 1.0 cannot say.
fn as_one(series: &Series) -> Series {
    let mut plain = Series { metadata: None, ..series.clone() };
    plain.sample.iter_mut().for_each(|sample| sample.start_timestamp = 0);
    plain.histogram.iter_mut().for_each(|histogram| histogram.start_timestamp = 0);
    plain
}

#[test]
fn both_versions_say_the_same_and_2_0_says_what_it_is_and_since_when() {
    let mut fed = Fed::new();
    let one = last_edge(Version::One, Histograms::Both, &mut fed);
    let two = last_edge(Version::Two, Histograms::Both, &mut fed);
    assert_eq!((one.version(), two.version()), ("1", "2"));
    assert_eq!(one.edge(), two.edge());
    assert_eq!(one.series, two.series.iter().map(as_one).collect::<Vec<_>>());
    for series in &two.series {
        let name = series.name();
        let expected = if name.ends_with("_total") { 1 } else { 3 };
        let (kind, help) = series.metadata.as_ref().expect("of each");
        assert!(*kind == expected && help.ends_with('.'), "{name}: {kind} {help}");
        let sample = series.sample.map(|sample| sample.start_timestamp);
        let histogram = series.histogram.as_ref().map(|histogram| histogram.start_timestamp);
        assert_eq!(sample.or(histogram), Some(fed.since), "{name}");
    }
    let exemplars: Vec<_> = two.series.iter().flat_map(|one| one.exemplars.iter().map(|of| (one.name(), of))).collect();
    for name in [CALLS, LATENCY, "traces_spanmetrics_latency_bucket"] {
        assert!(exemplars.iter().any(|(of, _)| *of == name), "{name}");
    }
    for (_, (labels, value, at)) in exemplars {
        let no = u64::from_str_radix(&labels["span_id"], 16).expect("an id") - 1;
        assert_eq!(labels["trace_id"], format!("{:032x}", no + 1));
        assert_eq!((*value * 1e9).round() as u64, latency(no), "the latency of the span");
        assert!((one.edge() - STEP..one.edge()).contains(at), "{at} is within the step");
    }
}

/// What a receiver says that does not know 2.0, by version.
#[track_caller]
fn check_falls_back(says: fn() -> Reply) {
    let receiver = Receiver::new(move |request| if request.version() == "2" { says() } else { taken(request) });
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::Auto, Histograms::Both);
    let (first, second) = (receiver.next(), receiver.next());
    assert_eq!((first.version(), second.version()), ("2", "1"));
    assert_eq!(first.edge(), second.edge());
    assert_eq!(second.series, first.series.iter().map(as_one).collect::<Vec<_>>(), "the same again");
    let mut edge = second.edge();
    loop {
        let request = receiver.next();
        assert_eq!((request.version(), request.edge()), ("1", edge + STEP));
        edge += STEP;
        if has_all(&request) {
            break;
        }
    }
}

#[test]
fn a_receiver_that_does_not_know_the_type_gets_1_0_from_then_on() {
    check_falls_back(|| (415, String::new(), "only prometheus.WriteRequest"));
}

#[test]
fn a_receiver_that_takes_2_0_for_an_empty_request_of_1_0_gets_1_0_from_then_on() {
    check_falls_back(|| (204, String::new(), ""));
}

#[test]
fn a_receiver_that_cannot_read_2_0_gets_1_0_from_then_on() {
    check_falls_back(|| (400, String::new(), "no such message"));
}

#[test]
fn who_asked_for_2_0_gets_no_other() {
    let receiver = Receiver::new(|_| (415, String::new(), ""));
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::Two, Histograms::Classic);
    let mut edge = receiver.next().edge();
    for _ in 0..5 {
        let request = receiver.next();
        assert_eq!((request.version(), request.edge()), ("2", edge + STEP), "given up, and the next one");
        edge += STEP;
    }
}

#[test]
fn what_failed_is_sent_again_and_2_0_stays() {
    for (status, headers) in [(500, String::new()), (503, written(0, 0)), (429, String::new())] {
        let mut asked = 0..;
        let receiver = Receiver::new(move |request| match asked.next() {
            Some(1) => (status, headers.clone(), "later"),
            _ => all_written(request),
        });
        let mut fed = Fed::new();
        fed.feed(&receiver, Version::Auto, Histograms::Both);
        let [first, failed, again, next] = std::array::from_fn(|_| receiver.next());
        assert_eq!((failed.edge(), &failed.series), (again.edge(), &again.series), "{status}");
        assert_eq!([failed.edge(), next.edge()], [first.edge() + STEP, first.edge() + 2 * STEP]);
        assert!([first, failed, again, next].iter().all(|request| request.version() == "2"));
    }
}

#[test]
fn a_partial_write_and_a_refusal_are_not_sent_again() {
    let mut asked = 0..;
    let receiver = Receiver::new(move |request| match asked.next() {
        Some(0) => (400, written(3, 0), "out of order sample"),
        Some(1) => (204, written(3, 0), ""),
        Some(2) => (401, String::new(), "no token"),
        _ => all_written(request),
    });
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::Auto, Histograms::Both);
    let mut edge = receiver.next().edge();
    for _ in 0..4 {
        let request = receiver.next();
        assert_eq!((request.version(), request.edge()), ("2", edge + STEP));
        edge += STEP;
    }
}

#[test]
fn a_redirection_is_a_refusal_and_not_followed() {
    let receiver = Receiver::new(|_| (301, "Location: /\r\n".to_owned(), ""));
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::One, Histograms::Classic);
    let first = receiver.next().edge();
    assert_eq!(receiver.next().edge(), first + STEP);
}

#[test]
fn a_series_is_0_before_its_first_sample_and_not_again() {
    let receiver = Receiver::new(all_written);
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::Auto, Histograms::Both);
    let mut known: BTreeSet<Labels> = BTreeSet::new();
    for _ in 0..3 {
        let request = receiver.next();
        for one in &request.series {
            let is_new = known.insert(one.labels.clone());
            assert_eq!(one.zero_at, is_new.then(|| request.edge() - STEP + 1), "{:?}", one.labels);
        }
    }
    assert!(!known.is_empty());
}

#[test]
fn a_restart_goes_on_behind_the_last_edge_that_was_taken() {
    let mut asked = 0..;
    let receiver = Receiver::new(move |request| match asked.next() {
        Some(..3) => all_written(request),
        _ => (500, String::new(), "full"),
    });
    let mut fed = Fed::new();
    fed.feed(&receiver, Version::Auto, Histograms::Native);
    let taken: Vec<Request> = (0..3).map(|_| receiver.next()).collect();
    let failed = receiver.next();
    let before = taken[2].sum(CALLS);
    assert!(0 < before && before < N_SPANS);
    let up = Receiver::new(all_written);
    fed.go_on(&up, Version::Auto, Histograms::Native, None);
    let first = up.next();
    assert_eq!(first.edge(), failed.edge(), "the one that was not taken is written, and none before it");
    let since = |request: &Request| request.of(CALLS).next().and_then(|one| one.sample).map(|one| one.start_timestamp);
    assert_eq!(since(&first), Some(taken[2].edge()), "counters begin anew behind what was taken");
    let zeros: BTreeSet<Option<i64>> = first.series.iter().map(|one| one.zero_at).collect();
    assert_eq!(zeros, BTreeSet::from([Some(taken[2].edge() + 1)]), "and are 0 there, whatever they become");
    let last = std::iter::once(first).chain(std::iter::repeat_with(|| up.next()));
    let last = last.map(|request| request.sum(CALLS)).find(|sum| N_SPANS - before <= *sum);
    assert_eq!(last, Some(N_SPANS - before), "nothing is missing, and nothing is counted twice");
    let kept = std::fs::read_to_string(&fed.position).expect("it is kept");
    assert!(kept.starts_with("spandrel-remote-write 1\n"), "{kept}");
}

#[test]
fn more_series_than_a_request_holds_come_in_several_and_only_the_one_that_failed_is_sent_again() {
    let (mut full_of, mut has_failed) = (None, false);
    let receiver = Receiver::new(move |request| {
        let is_full = request.series.len() == 5_000;
        if is_full || full_of != Some(request.edge()) || has_failed {
            full_of = is_full.then(|| request.edge());
            return taken(request);
        }
        has_failed = true;
        (500, String::new(), "full")
    });
    let mut fed = Fed::of(200, |no| format!("GET /{no}"));
    fed.feed(&receiver, Version::One, Histograms::Both);
    let first = receiver.first(|request| request.series.len() == 5_000);
    let [failed, again, next] = std::array::from_fn(|_| receiver.next());
    assert_eq!([failed.edge(), again.edge(), next.edge()], [first.edge(), first.edge(), first.edge() + STEP]);
    assert_eq!(failed.series, again.series);
    let all = || first.series.iter().chain(&again.series);
    let different: BTreeSet<&Labels> = all().map(|one| &one.labels).collect();
    assert_eq!(different.len(), all().count(), "each series once");
    let calls = all().filter(|one| one.name() == CALLS).count();
    assert!(150 < calls);
    for (name, of_each) in [("", 1), ("_bucket", 26), ("_count", 1), ("_sum", 1)] {
        assert_eq!(all().filter(|one| one.name() == format!("{LATENCY}{name}")).count(), of_each * calls, "{name}");
    }
}

#[test]
fn after_a_long_outage_the_last_two_hours_are_made_up_and_what_was_before_in_one_step() {
    let receiver = Receiver::new(all_written);
    let mut fed = Fed::new();
    let from = fed.since - 24 * 3_600_000;
    fed.go_on(&receiver, Version::Auto, Histograms::Classic, Some(from));
    let first = receiver.first(|request| !request.series.is_empty());
    assert_eq!(first.of(CALLS).next().and_then(|one| one.sample).map(|one| one.start_timestamp), Some(from));
    assert_eq!(first.edge(), fed.since + 2 * STEP, "the edge behind the first spans");
}

#[test]
fn the_token_is_read_for_every_request_and_nothing_is_sent_without_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("token");
    let at = path.clone();
    std::fs::write(&path, "first\n").expect("it can be written");
    let receiver = Receiver::new(move |request| {
        std::fs::write(&at, "second\n").expect("it can be written");
        all_written(request)
    });
    let mut fed = Fed::new();
    let settings = RemoteWrite {
        url: receiver.url.clone(),
        token_file: Some(path),
        version: Version::Auto,
        histograms: Histograms::Classic,
    };
    fed.restart(settings, Some(fed.since));
    let sent = [receiver.next(), receiver.next()].map(|request| request.headers["authorization"].clone());
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
}
