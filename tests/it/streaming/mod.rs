//! `tempopb.StreamingQuerier` with a gRPC client of another hand: the same answers as over HTTP, in messages that clients take.
//! Names cite the contract's checks and traps.

mod messages;
mod progress;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use spandrel::api::access::{Scope as TokenScope, new_token};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::support::{TestServer, block_on, now, post};
use crate::tempo_search::{encoded, filled, of_service, span, text};
use crate::wire::{Coding, Transport, Wire, framed};

use messages::{
    AsJson, Instants, Numbers, RangeRequest, Scopes, SearchRequest, SearchResponse, TagsRequest, Texts, TypedValues,
    ValuesRequest,
};

const SERVICE: &str = "/tempopb.StreamingQuerier/";
const SECOND: u64 = 1_000_000_000;

/// What clients take without being told otherwise; ours refuses more.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The messages of an answer and its trailers.
type Streamed<Answer> = Result<(Vec<Answer>, MetadataMap), Status>;

async fn call_with<Asked, Answer>(
    address: SocketAddr,
    method: &str,
    asked: Asked,
    metadata: &[(&'static str, &str)],
) -> Streamed<Answer>
where
    Asked: Message + 'static,
    Answer: Message + Default + 'static,
{
    let endpoint = Endpoint::new(format!("http://{address}")).expect("a URL");
    let mut client = tonic::client::Grpc::new(endpoint.connect().await.expect("the port answers"))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    client.ready().await.expect("the channel is ready");
    let path = format!("{SERVICE}{method}").parse().expect("a path");
    let mut request = Request::new(asked);
    for (name, value) in metadata {
        let _again = request.metadata_mut().append(*name, value.parse().expect("a value"));
    }
    let codec = tonic_prost::ProstCodec::<Asked, Answer>::default();
    let mut stream = client.server_streaming(request, path, codec).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok((messages, trailers))
}

fn call<Asked, Answer>(server: &TestServer, method: &str, asked: Asked) -> Streamed<Answer>
where
    Asked: Message + 'static,
    Answer: Message + Default + 'static,
{
    block_on(call_with(server.addresses.http, method, asked, &[]))
}

/// The one message of a small answer.
#[track_caller]
fn only<Answer: std::fmt::Debug>(streamed: Streamed<Answer>) -> Answer {
    let (mut messages, _) = streamed.expect("an answer");
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

/// The traces of all messages, with the metrics of the last: a slow machine tells what is settled before the end.
fn joined(messages: Vec<SearchResponse>) -> SearchResponse {
    let metrics = messages.last().expect("at least one message").metrics;
    assert!(messages.iter().all(|message| message.metrics.is_some()));
    SearchResponse { traces: messages.into_iter().flat_map(|message| message.traces).collect(), metrics }
}

fn searched(query: &str) -> SearchRequest {
    SearchRequest { query: query.to_owned(), ..SearchRequest::default() }
}

#[test]
fn stream_02_a_search_finds_what_http_finds_with_metrics_also_when_it_finds_nothing() {
    let (server, base) = filled();
    let secs = u32::try_from(base / SECOND).expect("before 2106");
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    for (asked, query) in [
        (searched(""), String::new()),
        (
            searched("{ status = error && .code != nil }"),
            format!("q={}", encoded("{ status = error && .code != nil }")),
        ),
        (searched("{ .size > 0 }"), format!("q={}", encoded("{ .size > 0 }"))),
        (searched("{ .code != nil }"), format!("q={}", encoded("{ .code != nil }"))),
        (searched("{ name = \"no such\" }"), format!("q={}", encoded("{ name = \"no such\" }"))),
        (SearchRequest { limit: 1, spans_per_span_set: 1, unknown: 7, ..searched("{}") }, "limit=1&spss=1".to_owned()),
        (
            SearchRequest { start: secs + 10, end: secs + 30, ..searched("{}") },
            format!("start={}&end={}", secs + 10, secs + 30),
        ),
        (
            SearchRequest { min_duration_ms: 100, max_duration_ms: 1_500, ..searched("") },
            "minDuration=100ms&maxDuration=1500ms".to_owned(),
        ),
        (
            SearchRequest { tags: pairs(&[("service.name", "payment"), ("code", "200")]), ..searched("") },
            format!("tags={}", encoded("code=200 service.name=payment")),
        ),
        (
            SearchRequest { tags: pairs(&[("cluster/name", "eu 1")]), limit: 2, ..searched("") },
            format!("tags={}&limit=2", encoded("cluster/name=\"eu 1\"")),
        ),
    ] {
        let found = joined(call(&server, "Search", asked.clone()).expect("an answer").0);
        assert_eq!(found.json(), server.json(&format!("/api/search?{query}")), "{asked:?}");
        let metrics = found.metrics.expect("metrics");
        assert!(0 < metrics.total_jobs && metrics.completed_jobs == metrics.total_jobs, "{metrics:?}");
        assert_eq!(found.traces.is_empty(), asked.query.contains("no such"), "{asked:?}");
    }
}

#[test]
fn stream_05_tags_and_values_are_those_of_http() {
    let (server, base) = filled();
    let secs = u32::try_from(base / SECOND).expect("before 2106");
    let tags = || TagsRequest { tags_max: 5, ..TagsRequest::default() };
    for (asked, query) in [
        (TagsRequest::default(), String::new()),
        (
            TagsRequest { scope: "span".to_owned(), query: "{ unfinished =".to_owned(), ..tags() },
            "scope=span&limit=5".to_owned(),
        ),
        (TagsRequest { start: 1_000, end: 2_000, ..tags() }, "limit=5&start=1000&end=2000".to_owned()),
    ] {
        let scopes: Scopes = only(call(&server, "SearchTagsV2", asked.clone()));
        assert_eq!(scopes.json(), server.json(&format!("/api/v2/search/tags?{query}")), "{asked:?}");
        let names: Texts = only(call(&server, "SearchTags", asked));
        assert_eq!(Value::from(names.texts), server.json(&format!("/api/search/tags?{query}"))["tagNames"]);
    }
    let values = |tag: &str| ValuesRequest { tag: tag.to_owned(), ..ValuesRequest::default() };
    let shops = "{ resource.service.name = \"shop\" }";
    for (asked, query) in [
        (values("span.code"), String::new()),
        (values("resource.cluster/name"), String::new()),
        (values("status"), String::new()),
        (values("span.\"a b\""), String::new()),
        (values("none"), String::new()),
        (ValuesRequest { query: shops.to_owned(), ..values("name") }, format!("q={}", encoded(shops))),
        (
            ValuesRequest { values_max: 1, start: secs, end: secs + 60, ..values("name") },
            format!("limit=1&start={secs}&end={}", secs + 60),
        ),
    ] {
        let of = encoded(&asked.tag);
        let typed: TypedValues = only(call(&server, "SearchTagValuesV2", asked.clone()));
        assert_eq!(typed.json(), server.json(&format!("/api/v2/search/tag/{of}/values?{query}")), "{asked:?}");
        let texts: Texts = only(call(&server, "SearchTagValues", asked));
        assert_eq!(Value::from(texts.texts), server.json(&format!("/api/search/tag/{of}/values?{query}"))["tagValues"]);
    }
}

#[test]
fn stream_03_numbers_over_time_and_of_an_instant_are_those_of_http() {
    let (server, base) = filled();
    let (start, end) = (base - 60 * SECOND, base + 60 * SECOND);
    for query in [
        "{} | count_over_time()",
        "{} | rate() by(resource.service.name)",
        "{} | count_over_time() by(span.code)",
        "{ name != \"none\" } | quantile_over_time(duration, 0.5, 0.99) by(name)",
        "{} | histogram_over_time(duration)",
        "{ name = \"none\" } | count_over_time()",
    ] {
        let url = format!("q={}&start={start}&end={end}", encoded(query));
        let asked = RangeRequest { query: query.to_owned(), start, end, ..RangeRequest::default() };
        for (step, exemplars, more) in [(0, 0, ""), (15 * SECOND, 1, "&step=15s&exemplars=1")] {
            let asked = RangeRequest { step, exemplars, ..asked.clone() };
            let numbers: Numbers = only(call(&server, "MetricsQueryRange", asked));
            assert_eq!(numbers.json(), server.json(&format!("/api/metrics/query_range?{url}{more}")), "{query}{more}");
        }
        let instants: Instants = only(call(&server, "MetricsQueryInstant", asked));
        assert_eq!(instants.json(), server.json(&format!("/api/metrics/query?{url}")), "{query}");
    }
}

#[track_caller]
fn check(server: &TestServer, refused: Result<impl std::fmt::Debug, Status>, code: Code, path: &str) {
    let status = refused.expect_err(path);
    let answer = server.get(path);
    assert_eq!((status.code(), status.message()), (code, answer.text().as_str()), "{path}");
    assert_eq!(answer.status, 400, "{path}");
}

#[test]
fn a_refusal_is_a_status_with_the_text_of_http() {
    let server = TestServer::new();
    let bad = Code::InvalidArgument;
    for (asked, query) in [
        (searched("{ status = }"), format!("q={}", encoded("{ status = }"))),
        (searched("{ 1 }"), format!("q={}", encoded("{ 1 }"))),
        (SearchRequest { limit: 1_000_000, ..searched("") }, "limit=1000000".to_owned()),
        (SearchRequest { start: 5, end: 5, ..searched("") }, "start=5&end=5".to_owned()),
        (SearchRequest { min_duration_ms: 5, ..searched("{}") }, "q=%7B%7D&minDuration=5ms".to_owned()),
    ] {
        let refused: Streamed<SearchResponse> = call(&server, "Search", asked);
        check(&server, refused, bad, &format!("/api/search?{query}"));
    }
    let range =
        |query: &str, start, end, step| RangeRequest { query: query.to_owned(), start, end, step, exemplars: 0 };
    for (asked, query) in [
        (range("{} | rate", 0, 0, 0), format!("q={}", encoded("{} | rate"))),
        (range("{}", 0, 0, 0), "q=%7B%7D".to_owned()),
        (range("{} | rate()", 2, 1, 0), format!("q={}&start=00000000002&end=00000000001", encoded("{} | rate()"))),
        (
            range("{} | rate()", 1, 11_001, 1),
            format!("q={}&start=00000000001&end=00000011001&step=1ns", encoded("{} | rate()")),
        ),
    ] {
        let refused: Streamed<Numbers> = call(&server, "MetricsQueryRange", asked);
        check(&server, refused, bad, &format!("/api/metrics/query_range?{query}"));
    }
    let asked = TagsRequest { scope: "nope".to_owned(), ..TagsRequest::default() };
    let refused: Streamed<Scopes> = call(&server, "SearchTagsV2", asked);
    check(&server, refused, bad, "/api/v2/search/tags?scope=nope");
}

/// `traces` traces of `spans` spans, each with a text of 60,000 bytes.
fn large(traces: u8, spans: u8) -> TestServer {
    let server = TestServer::new();
    let start = now().0 - 60 * SECOND;
    for trace in 1..=traces {
        let of =
            |no| span(trace, no, start + u64::from(trace) * SECOND, "work", vec![text("big", &"x".repeat(60_000))]);
        let resource_spans = vec![of_service("shop", (1..=spans).map(of).collect())];
        server.deliver(&ExportTraceServiceRequest { resource_spans });
    }
    server
}

#[test]
fn stream_06_an_answer_above_4_mib_comes_in_several_messages_and_no_trace_twice() {
    let server = large(100, 1);
    let asked = SearchRequest { limit: 100, ..searched("{ .big != nil }") };
    let (messages, trailers): (Vec<SearchResponse>, _) = call(&server, "Search", asked).expect("an answer");
    assert!(2 <= messages.len(), "6 MB");
    assert!(messages.iter().all(|message| message.encoded_len() < MESSAGE_BYTES_MAX));
    let traces: Vec<Value> = joined(messages).traces.iter().map(AsJson::json).collect();
    let whole = server.json(&format!("/api/search?limit=100&q={}", encoded("{ .big != nil }")));
    assert_eq!(Value::from(traces), whole["traces"], "each once, in order");
    assert!(trailers.get("spandrel-coverage").is_none(), "nothing is missing");
}

#[test]
fn stream_06_a_trace_above_4_mib_shows_fewer_spans_and_says_so() {
    let server = large(2, 80);
    let asked = SearchRequest { spans_per_span_set: 1_000, ..searched("{ .big != nil }") };
    let (messages, trailers): (Vec<SearchResponse>, _) = call(&server, "Search", asked).expect("an answer");
    assert!(messages.iter().all(|message| message.traces.len() <= 1), "two do not fit into one");
    let traces = joined(messages).traces;
    assert_eq!(traces.len(), 2);
    for trace in &traces {
        let set = &trace.sets[0];
        assert_eq!((set.matched, set.spans.len()), (80, MESSAGE_BYTES_MAX / 60_100));
    }
    let coverage = trailers.get("spandrel-coverage").expect("what is missing").to_str().expect("text");
    assert!(coverage.contains("of 2 traces fewer spans are shown"), "{coverage}");
}

#[test]
fn a_call_asks_for_the_scope_query_and_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, mut tokens, mut entries) = (dir.path().join("tokens.toml"), Vec::new(), String::new());
    for scope in [TokenScope::Ingest, TokenScope::Query, TokenScope::Admin] {
        let (token, entry) = new_token("one", &[scope], None).expect("randomness");
        entries.extend(["[[token]]\n", &toml::to_string(&entry).expect("it is TOML")]);
        tokens.push(format!("Bearer {token}"));
    }
    std::fs::write(&path, entries).expect("the directory is writable");
    let server = TestServer::with(move |config| config.access.tokens = Some(path.clone()));
    let code = |token: &str| {
        let metadata = [("authorization", token)];
        let metadata = if token.is_empty() { &[] } else { &metadata[..] };
        let answer: Streamed<SearchResponse> =
            block_on(call_with(server.addresses.http, "Search", searched("{}"), metadata));
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!([code(""), code("Bearer spandrel_0")], [Code::Unauthenticated; 2]);
    assert_eq!([code(&tokens[0]), code(&tokens[1]), code(&tokens[2])], [Code::PermissionDenied, Code::Ok, Code::Ok]);
}

#[test]
fn what_is_no_call_of_these_is_refused_in_the_callers_own_language() {
    let server = TestServer::new();
    let unknown: Streamed<Texts> = call(&server, "BackendSearch", Texts::default());
    let status = unknown.expect_err("no such method");
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("/tempopb.StreamingQuerier/BackendSearch"), "{status}");
    let base = format!("http://{}", server.addresses.http);
    let not_grpc = post(&format!("{base}{SERVICE}Search"), &[("content-type", "application/json")], b"{}");
    assert_eq!((not_grpc.status, not_grpc.header("content-type")), (415, "text/plain; charset=utf-8"));
    assert_eq!(server.get(&format!("{SERVICE}Search")).status, 415);
    let unknown = post(&format!("{base}{SERVICE}Nothing"), &[], b"");
    assert_eq!((unknown.status, unknown.header("content-type")), (404, "text/plain; charset=utf-8"));
}

#[test]
fn a_call_is_bounded_in_size_and_time_and_may_be_compressed() {
    let (server, _) = filled();
    let asked = searched("{ name = \"consume\" }").encode_to_vec();
    let long = searched(&"x".repeat(20_000)).encode_to_vec();
    let gzip = [("grpc-encoding", "gzip")];
    let tenants = [("x-scope-orgid", "one"), ("x-scope-orgid", "one"), ("user-agent", "Grafana/13.0")];
    block_on(async {
        let mut wire = Wire::connect(server.addresses.http, Transport::Grpc).await;
        for (headers, framed, code, said) in [
            (&[][..], framed(0, &asked), Code::Ok, ""),
            (&tenants, framed(0, &asked), Code::Ok, ""),
            (&gzip, framed(1, &Coding::Gzip.encode(&asked)), Code::Ok, ""),
            (&gzip, framed(0, &asked), Code::Ok, ""),
            (&[("grpc-timeout", "1M")], framed(0, &asked), Code::Ok, ""),
            (&[], framed(0, &long), Code::ResourceExhausted, "more than 16384 bytes"),
            (&gzip, framed(1, &Coding::Gzip.encode(&long)), Code::ResourceExhausted, "more than 16384 bytes"),
            (&[], framed(0, &[0xff]), Code::InvalidArgument, "cannot be decoded"),
            (&[], b"\0\0\0\0\x05abc".to_vec(), Code::InvalidArgument, "shorter than its length prefix"),
            (&[], Vec::new(), Code::InvalidArgument, "shorter than its length prefix"),
            (&[], framed(1, &asked), Code::Internal, "no grpc-encoding"),
            (&[("grpc-encoding", "snappy")], framed(1, &asked), Code::Unimplemented, "snappy"),
            (&[("grpc-timeout", "soon")], framed(0, &asked), Code::InvalidArgument, "grpc-timeout"),
        ] {
            let reply = wire.call(&format!("{SERVICE}Search"), headers, framed).await;
            assert_eq!((reply.status, reply.grpc_status), (200, Some(code as i32)), "{headers:?} {said}");
            assert_eq!(reply.header("content-type"), "application/grpc");
            if code == Code::Ok {
                let (mut rest, mut messages) = (reply.body.as_slice(), Vec::new());
                while let Some((prefix, behind)) = rest.split_first_chunk::<5>() {
                    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                    messages.push(SearchResponse::decode(&behind[..length]).expect("a message"));
                    rest = &behind[length..];
                }
                assert_eq!(joined(messages).traces.len(), 1, "{headers:?}");
            } else {
                assert!(reply.error().contains(said), "{headers:?}: {}", reply.error());
            }
        }
    });
}

#[test]
fn a_call_ends_at_the_clients_deadline_whatever_it_waits_for() {
    let server = TestServer::new();
    block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addresses.http).await.expect("the port answers");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        let _detached = tokio::spawn(connection);
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = hyper::Request::post(format!("http://{}{SERVICE}Search", server.addresses.http));
        let request = request.header("content-type", "application/grpc").header("grpc-timeout", "20m");
        let response = sender.send_request(request.body(never).expect("a request")).await.expect("an answer");
        assert_eq!(response.headers()["grpc-status"], "4", "{:?}", response.headers());
    });
}
