//! Queries that would like to be a server's last: each ends with an answer that says what became of it, whoever asks as many
//! of them at once, and spans are taken meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::support::{TestServer, get, now};
use crate::tempo_search::{encoded, of_service, text};

/// Different values of one attribute: more than a question may group by.
const VALUES: u64 = 60_000;
const SPANS_PER_REQUEST: u64 = 2_000;
/// A question ends after 30 s; a slow machine needs some more to say so.
const WITHIN: Duration = Duration::from_secs(55);

/// What may come of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is answered, or ends after its time with 503.
    Answered,
    /// 400, before anything is read or when its bound is reached; the text has these words.
    Refused(&'static str),
}

fn repeated(open: &str, middle: &str, close: &str, n: usize) -> String {
    format!("{}{middle}{}", open.repeat(n), close.repeat(n))
}

fn deaths() -> Vec<(String, End)> {
    let search = |q: &str| format!("/api/search?limit=1000&spss=0&q={}", encoded(q));
    let metrics = |q: &str, more: &str| format!("/api/metrics/query_range?since=720h{more}&q={}", encoded(q));
    let many_filters = (0..70).map(|n| format!("{{ .a = {n} }}")).collect::<Vec<_>>().join(" && ");
    vec![
        (search("{}"), End::Answered),
        (search("{ .id =~ \"(a+)+(b+)+.*(c|d|e)*[0-9]{1,20}z\" }"), End::Answered),
        (search("{ .id =~ \"(((a{1,100}){1,100}){1,100}){1,100}\" }"), End::Refused("too large")),
        (search("{} !>> {} !>> {} !>> {} !~ {}"), End::Answered),
        (search(&vec!["{}"; 60].join(" >> ")), End::Answered),
        (search(&vec!["{}"; 200].join(" >> ")), End::Refused("inside each other")),
        (search(&repeated("(", "{}", ")", 90)), End::Answered),
        (search(&repeated("(", "{}", ")", 2_000)), End::Refused("inside each other")),
        (search(&format!("{{ {} }}", repeated("!(", ".a = 1", ")", 2_000))), End::Refused("inside each other")),
        (search(&many_filters), End::Refused("at most 64")),
        (search(&vec!["{ .a = 1 }"; 1_000].join(" || ")), End::Answered),
        (search("{} | by(.id) | count() > 0"), End::Answered),
        (search("{} | by(.id) | by(.id) | by(.id) | coalesce() | max(duration) > 0s | select(.id)"), End::Answered),
        (search(&"x".repeat(20_000)), End::Refused("too many")),
        (metrics("{} | rate() by(.id)", ""), End::Refused("values in the window")),
        (
            metrics("{} | quantile_over_time(duration, .5, .9, .99, .999) by(span:id)", ""),
            End::Refused("values in the window"),
        ),
        (metrics("{} | rate()", "&step=1ms"), End::Refused("points")),
        (metrics("{} | histogram_over_time(duration)", "&start=1&end=1999999999"), End::Answered),
        (metrics("{ .id =~ \".*9.*9.*9.*\" || event.id != nil || link.id != nil } | rate()", ""), End::Answered),
        (metrics("{} | compare({ duration > 20ms })", ""), End::Answered),
        (metrics("{} | sum_over_time(.n) by(.id, name, kind) | topk(5)", ""), End::Refused("")),
        ("/api/v2/search/tag/span.id/values?limit=1000000".to_owned(), End::Answered),
        ("/api/v2/search/tags?limit=1000000".to_owned(), End::Answered),
        ("/jaeger/api/traces?service=deaths&limit=1500&lookback=720h".to_owned(), End::Answered),
    ]
}

fn spans(first: u64) -> ExportTraceServiceRequest {
    let number = |n: u64| KeyValue {
        key: "n".to_owned(),
        value: Some(opentelemetry_proto::tonic::common::v1::AnyValue { value: Some(Any::IntValue(n.cast_signed())) }),
        ..KeyValue::default()
    };
    let span = |no: u64| Span {
        trace_id: u128::from(1 + no / 20).to_be_bytes().to_vec(),
        span_id: (no + 1).to_be_bytes().to_vec(),
        parent_span_id: if no.is_multiple_of(20) { Vec::new() } else { no.to_be_bytes().to_vec() },
        name: format!("work {}", no % 7),
        kind: 2,
        start_time_unix_nano: now().0,
        end_time_unix_nano: now().0 + 1_000_000 * (no % 50 + 1),
        attributes: vec![text("id", &format!("id-{no}")), number(no % 10)],
        ..Span::default()
    };
    let spans = (first..first + SPANS_PER_REQUEST).map(span).collect();
    ExportTraceServiceRequest { resource_spans: vec![of_service("deaths", spans)] }
}

#[test]
fn every_query_of_death_ends_in_time_and_spans_are_taken_meanwhile() {
    let server = TestServer::new();
    (0..VALUES / SPANS_PER_REQUEST).for_each(|no| server.deliver(&spans(no * SPANS_PER_REQUEST)));
    let (deaths, next, mut sent) = (deaths(), AtomicUsize::new(0), 0);
    let address = server.addresses.http;
    std::thread::scope(|scope| {
        let asker = || {
            while let Some((path, end)) = deaths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = std::time::Instant::now();
                let answer = get(&format!("http://{address}{path}"), &[]);
                let said = answer.text();
                let what = format!("{:.100}: {} {:.200}", path, answer.status, said);
                match end {
                    End::Answered => assert!(matches!(answer.status, 200 | 503), "{what}"),
                    End::Refused(why) => assert!(answer.status == 400 && said.contains(why), "{what}"),
                }
                assert!(began.elapsed() < WITHIN, "{what}");
            }
        };
        let askers: Vec<_> = (0..4).map(|_| scope.spawn(asker)).collect();
        while !askers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            server.deliver(&spans(VALUES + sent));
            sent += SPANS_PER_REQUEST;
        }
        for asker in askers {
            asker.join().expect("every query ends as it should");
        }
    });
    let all = VALUES + sent;
    let path = format!(
        "/api/metrics/query?since=1h&q={}",
        encoded("{ resource.service.name = \"deaths\" } | count_over_time()")
    );
    assert_eq!(server.json(&path)["series"][0]["value"].as_f64(), Some(all as f64), "{path}");
}
