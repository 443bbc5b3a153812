//! The books balance, whatever was sent.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use spandrel::cli::shop::{Grouping, Requests, Shop};

use crate::support::{TestServer, now};

/// Sum over all labels of a metric.
fn metric(exposition: &str, name: &str) -> u64 {
    let samples =
        exposition.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    samples
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number") as u64)
        .sum()
}

fn books(server: &TestServer) -> [u64; 7] {
    let answer = server.get("/metrics");
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(answer.text().ends_with("# EOF\n"), "OpenMetrics ends with its mark");
    [
        "received_total",
        "replayed_total",
        "stored_total",
        "in_head",
        "duplicate_total",
        "rejected_total",
        "refused_total",
    ]
    .map(|name| metric(&answer.text(), &format!("spandrel_ingest_spans_{name}")))
}

#[track_caller]
fn assert_balanced(server: &TestServer) -> [u64; 7] {
    let books = books(server);
    let [received, replayed, stored, in_head, duplicate, rejected, refused] = books;
    assert_eq!(received + replayed, stored + in_head + duplicate + rejected + refused, "{books:?}");
    books
}

fn requests(seed: u64, traces: usize) -> Vec<ExportTraceServiceRequest> {
    let (mut shop, mut requests) = (Shop::new(seed), Requests::new(Grouping::Collector));
    let mut all: Vec<_> = (0..traces).flat_map(|_| requests.add(shop.next_trace(now()))).collect();
    all.extend(requests.flush());
    all
}

fn spans_of(requests: &[ExportTraceServiceRequest]) -> u64 {
    let resources = requests.iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len() as u64).sum()
}

#[test]
fn rel_28_received_is_stored_or_duplicate_or_rejected_or_refused() {
    let mut server = TestServer::with(|config| config.ingest.checkpoint_spans = 1_000);
    let good = requests(1, 200);
    for request in &good {
        assert_eq!(server.send(request).status, 200);
    }
    let mut spoiled = requests(2, 20);
    for span in spoiled
        .iter_mut()
        .flat_map(|r| &mut r.resource_spans)
        .flat_map(|r| &mut r.scope_spans)
        .flat_map(|s| &mut s.spans)
        .step_by(7)
    {
        span.span_id.clear();
    }
    for request in &spoiled {
        assert_eq!(server.send(request).status, 200);
    }
    assert_eq!(server.send(&good[0]).status, 200, "a retry");
    assert_eq!(server.post("application/x-protobuf", b"no protobuf").status, 400);
    let [received, _, _, _, duplicate, rejected, refused] = assert_balanced(&server);
    assert_eq!(received, spans_of(&good) + spans_of(&spoiled) + spans_of(&good[..1]));
    assert_eq!((duplicate, rejected, refused), (spans_of(&good[..1]), spans_of(&spoiled).div_ceil(7), 0));
    server.restart();
    let [_, replayed, ..] = assert_balanced(&server);
    assert_eq!(replayed, 0, "rel_10: after a clean stop nothing is replayed");
}

#[test]
fn bi_014_a_request_sent_again_is_stored_and_counted_once_also_across_a_restart() {
    let mut server = TestServer::new();
    let request = &requests(3, 30)[0];
    let count = |server: &TestServer| {
        let services = server.json("/spandrel/v1/services");
        services["services"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|s| s["span_count"].as_u64().expect("a number"))
            .sum::<u64>()
    };
    for _ in 0..3 {
        assert_eq!(server.send(request).status, 200);
    }
    let once = spans_of(std::slice::from_ref(request));
    assert_eq!(count(&server), once);
    server.restart();
    assert_eq!(server.send(request).status, 200);
    assert_eq!(count(&server), once, "the window is read back from the journal");
    assert_balanced(&server);
}
