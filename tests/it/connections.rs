//! Connections that are slow, many, hostile or told to go; and what they may cost.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use prost::Message as _;
use spandrel::config::Config;

use crate::support::{ChildServer, TestServer, block_on, get, request, serve};
use crate::wire::{Coding, Transport, Wire, framed};

/// Longer than anything here takes; what is still open then does not end.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the port answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Everything until the server closes; resets count as closed.
fn until_closed(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => panic!("the connection is not closed: {error}; it said {:?}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Sends bytes and reads until the server closes.
fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let _closed_already = stream.write_all(bytes);
    until_closed(stream)
}

/// The limits of the specification, divided: a test does not wait for minutes.
fn impatient(config: &mut Config) {
    let limits = &mut config.connections;
    for limit in [
        &mut limits.head_within,
        &mut limits.handshake_within,
        &mut limits.idle_within,
        &mut limits.first_request_within,
        &mut limits.body_stalls_within,
        &mut limits.reader_stalls_within,
    ] {
        *limit = Duration::from_millis(600);
    }
    limits.idle_within = Duration::from_millis(900);
}

fn export_head(length: usize) -> String {
    format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[test]
fn bi_104_bi_117_bi_118_slow_and_half_sent_requests_are_closed_and_honest_ones_served() {
    let server = TestServer::with(impatient);
    let address = server.addresses.otlp_http;
    let began = Instant::now();
    let slow: Vec<TcpStream> = (0..100)
        .map(|at| {
            let mut stream = connect(address);
            let half = match at % 4 {
                0 => "POST /v1/traces HT".to_owned(),
                1 => export_head(64 << 20) + "12345",
                2 => String::new(),
                _ => "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n".to_owned(),
            };
            stream.write_all(half.as_bytes()).expect("it is sent");
            stream
        })
        .collect();
    for first in 0..20 {
        assert_eq!(server.send(&request(1, first + 1)).status, 200, "sec_08: honest clients are served meanwhile");
    }
    for (at, stream) in slow.into_iter().enumerate() {
        let said = until_closed(stream);
        let expected = if at % 4 == 1 || at % 4 == 3 { "HTTP/1.1 408" } else { "" };
        assert!(said.starts_with(expected) && (expected.is_empty() == said.is_empty()), "{at}: {said}");
    }
    assert!(began.elapsed() < PATIENCE);
    // Nothing of them is stored: a body shorter than it was said to be, and a client that is gone.
    let mut stream = connect(address);
    let body = request(1, 99).encode_to_vec();
    stream
        .write_all(export_head(body.len() + 1).as_bytes())
        .and_then(|()| stream.write_all(&body))
        .expect("it is sent");
    stream.shutdown(std::net::Shutdown::Write).expect("an option");
    let _said = until_closed(stream);
    let trace = server.json("/spandrel/v1/traces/07070707070707070707070707070707");
    assert_eq!(trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(Vec::len), Some(20));
}

#[test]
fn otlp_07_a_connection_serves_thousands_of_requests_and_is_told_goodbye_when_idle() {
    let server = TestServer::with(impatient);
    block_on(async {
        for transport in [Transport::Protobuf, Transport::Grpc] {
            let mut wire = Wire::connect(server.addresses.otlp_http, transport).await;
            for _ in 0..2_000 {
                let reply = wire.export(Coding::Identity, b"").await;
                assert_eq!(reply.status, 200);
            }
        }
    });
    let mut stream = connect(server.addresses.otlp_http);
    stream.write_all(format!("{}{}", export_head(0), export_head(0)).as_bytes()).expect("it is sent");
    let said = until_closed(stream);
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "both are answered before it closes: {said}");
}

#[test]
fn sec_08_a_client_that_does_not_read_its_answer_is_closed() {
    let server = TestServer::with(impatient);
    let stored = request(8_000, 1);
    for first in 0..4 {
        let mut more = stored.clone();
        for span in &mut more.resource_spans[0].scope_spans[0].spans {
            span.span_id[0] = first + 1;
            span.name = "a name that takes some room in the answer ".repeat(20);
        }
        assert_eq!(server.send(&more).status, 200);
    }
    let mut stream = connect(server.addresses.http);
    let question = "GET /spandrel/v1/traces/07070707070707070707070707070707 HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(question.as_bytes()).expect("it is sent");
    let timed_out = |server: &TestServer| {
        let metrics = server.get("/metrics").text();
        metrics.contains("spandrel_connections_timed_out_total{reason=\"reader_stalled\"} 1")
    };
    let deadline = Instant::now() + PATIENCE;
    while !timed_out(&server) {
        assert!(Instant::now() < deadline, "the connection is closed");
    }
    drop(stream);
}

#[test]
fn sec_09_an_address_has_so_many_connections_and_a_closed_one_makes_room() {
    let server = TestServer::with(|config| config.connections.connections_per_address_max = 8);
    let mut open: Vec<TcpStream> = (0..8).map(|_| connect(server.addresses.otlp_http)).collect();
    // Accepted in order: when the last one is served, the others have their places.
    let last = open.last_mut().expect("eight");
    last.write_all(export_head(0).as_bytes()).expect("it is sent");
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("it is answered");
    for _ in 0..100 {
        assert_eq!(talk(server.addresses.otlp_http, export_head(0).as_bytes()), "", "closed without a word");
    }
    drop(open.pop());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(server.addresses.otlp_http);
        let mut answer = [0; 12];
        let sent = stream.write_all(export_head(0).as_bytes());
        if sent.and_then(|()| stream.read_exact(&mut answer)).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 200");
            break;
        }
        assert!(Instant::now() < deadline, "there is room again");
    }
}

#[test]
fn rel_29_without_file_descriptors_the_open_connections_go_on_and_new_ones_come_later() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = std::process::Command::new("sh");
    let line = format!(
        "ulimit -n 64; exec {} serve --log-format json --otlp-grpc 127.0.0.1:0 --otlp-http 127.0.0.1:0 --http 127.0.0.1:0 \
         --data-dir {}",
        env!("CARGO_BIN_EXE_spandrel"),
        dir.path().display()
    );
    let server = ChildServer::from(command.args(["-c", &line])).expect("it starts");
    let address: SocketAddr = server.otlp_http.parse().expect("an address");
    block_on(async {
        let mut wire = Wire::connect(address, Transport::Protobuf).await;
        assert_eq!(wire.export(Coding::Identity, b"").await.status, 200);
        let flood: Vec<TcpStream> = (0..100).map_while(|_| TcpStream::connect(address).ok()).collect();
        for _ in 0..10 {
            let reply = wire.try_http(&[], Vec::new()).await;
            let said = || server.said();
            assert!(
                reply.as_ref().is_ok_and(|reply| reply.status == 200),
                "a client from before: {reply:?}; {}",
                said()
            );
        }
        drop(flood);
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(address);
        let mut answer = [0; 12];
        let sent = stream.write_all(export_head(0).as_bytes());
        if sent.and_then(|()| stream.read_exact(&mut answer)).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "new clients are served again");
    }
}

#[test]
fn bi_119_large_heads_are_refused_with_431_and_the_port_goes_on() {
    let server = TestServer::new();
    let with = |fields: String| {
        format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n{fields}connection: close\r\n\r\n")
    };
    let many = "x: 1\r\n".repeat(101);
    let wide = format!("x: {}\r\n", "v".repeat(17 << 10));
    let token = format!("authorization: Bearer {}\r\n", "v".repeat(64 << 10));
    let content_type = format!("content-type: {}\r\n", "v".repeat(64 << 10));
    for fields in [many, wide, token, content_type] {
        let said = talk(server.addresses.otlp_http, with(fields).as_bytes());
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
    assert_eq!(server.send(&request(1, 1)).status, 200);
}

#[test]
fn bi_116_bi_120_sec_26_ambiguous_requests_are_refused_and_closed() {
    let server = TestServer::new();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    for rest in [
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
        "x: a\nb\r\ncontent-length: 2\r\n\r\n{}",
        "x: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
        "content-length: -1\r\n\r\n",
    ] {
        let said = talk(server.addresses.otlp_http, format!("{head}{rest}").as_bytes());
        // A length beside chunks is ignored, as RFC 9112 6.3 allows where the connection ends after the answer.
        let chunked = rest.starts_with("content-length: 2\r\ntransfer-encoding") && said.contains("connection: close");
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 400") || said.starts_with("HTTP/1.1 408");
        assert!((refused || chunked) && said.matches("HTTP/1.1").count() <= 1, "{rest:?}: {said}");
    }
    assert_eq!(server.send(&request(1, 1)).status, 200);
}

#[test]
fn otlp_49_bi_115_the_matrix_of_http1_works() {
    let server = TestServer::new();
    let json = "content-type: application/json; charset=utf-8\r\n";
    for (request, expected) in [
        (format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\n{json}expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"), "HTTP/1.1 100 Continue"),
        (format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\n{json}transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), "HTTP/1.1 200 OK"),
        (format!("POST /v1/traces HTTP/1.0\r\n{json}content-length: 2\r\n\r\n{{}}"), "HTTP/1.0 200 OK"),
        (format!("POST http://elsewhere/v1/traces?x=1 HTTP/1.1\r\nhost: a\r\n{json}content-length: 2\r\nconnection: close\r\n\r\n{{}}"), "HTTP/1.1 200 OK"),
        ("POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: \u{ff}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".to_owned(), "HTTP/1.1 415"),
        (format!("POST //v1/traces HTTP/1.1\r\nhost: a\r\n{json}content-length: 2\r\nconnection: close\r\n\r\n{{}}"), "HTTP/1.1 404"),
        (format!("POST /V1/TRACES HTTP/1.1\r\nhost: a\r\n{json}content-length: 2\r\nconnection: close\r\n\r\n{{}}"), "HTTP/1.1 404"),
        (format!("POST /v1/traces/../admin HTTP/1.1\r\nhost: a\r\n{json}content-length: 2\r\nconnection: close\r\n\r\n{{}}"), "HTTP/1.1 404"),
        ("TRACE /v1/traces HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), "HTTP/1.1 405"),
    ] {
        let said = talk(server.addresses.otlp_http, request.as_bytes());
        assert!(said.starts_with(expected), "{request:?}: {said}");
    }
}

#[test]
fn otlp_05_both_ports_take_grpc_and_http_and_tell_them_apart() {
    let server = TestServer::new();
    block_on(async {
        for (first, address) in [(1, server.addresses.otlp_grpc), (2, server.addresses.otlp_http)] {
            for (at, transport) in [Transport::Grpc, Transport::Protobuf].into_iter().enumerate() {
                let mut wire = Wire::connect(address, transport).await;
                let body = request(1, first * 10 + at as u64).encode_to_vec();
                let reply = wire.export(Coding::Identity, &body).await;
                assert_eq!((reply.status, reply.grpc_status.unwrap_or(0)), (200, 0));
            }
        }
    });
    let trace = server.json("/spandrel/v1/traces/07070707070707070707070707070707");
    assert_eq!(trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(Vec::len), Some(4));
}

#[test]
fn otlp_14_16_33_34_48_bi_093_to_bi_105_framing_and_sizes_have_their_exact_status() {
    let server = TestServer::with(|config| config.body_bytes_max = 100_000);
    let exact = |bytes: usize| {
        // Padded by an unknown field, so that the length is met to the byte.
        let mut body = request(1, bytes as u64).encode_to_vec();
        let pad = bytes - body.len() - 4;
        prost::encoding::encode_key(99, prost::encoding::WireType::LengthDelimited, &mut body);
        prost::encoding::encode_varint(pad as u64 - 1, &mut body);
        body.resize(bytes, 0);
        body
    };
    let code = |reply: &crate::wire::Reply| reply.grpc_status.map_or(i32::from(reply.status), |code| code);
    block_on(async {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            for (bytes, grpc, http) in [(99_999, 0, 200), (100_000, 0, 200), (100_001, 8, 413)] {
                for (transport, expected) in [(Transport::Grpc, grpc), (Transport::Protobuf, http)] {
                    let mut wire = Wire::connect(server.addresses.otlp_grpc, transport).await;
                    let reply = wire.export(coding, &exact(bytes)).await;
                    assert_eq!(code(&reply), expected, "bi_093, bi_094: {bytes} {coding:?} {transport:?}: {reply:?}");
                }
            }
        }
        let good = request(1, 7).encode_to_vec();
        let mut wire = Wire::connect(server.addresses.otlp_grpc, Transport::Grpc).await;
        let gzip = Coding::Gzip.encode(&good);
        let mut wrong_crc = gzip.clone();
        let end = wrong_crc.len();
        wrong_crc[end - 8] ^= 1;
        let window = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00".to_vec();
        for (what, headers, body, expected) in [
            ("otlp_33: no grpc-encoding", vec![], framed(1, &gzip), 13),
            ("bi_103: flag 2", vec![("grpc-encoding", "gzip")], framed(2, &gzip), 13),
            ("bi_100", vec![("grpc-encoding", "br")], framed(1, &gzip), 12),
            ("bi_067", vec![("grpc-encoding", "gzip")], framed(1, b"no gzip"), 3),
            ("bi_097: CRC", vec![("grpc-encoding", "gzip")], framed(1, &wrong_crc), 3),
            ("bi_097: truncated", vec![("grpc-encoding", "gzip")], framed(1, &gzip[..end - 9]), 3),
            ("bi_098: window", vec![("grpc-encoding", "zstd")], framed(1, &window), 3),
            ("bi_105", vec![], framed(0, &good)[..good.len()].to_vec(), 3),
            ("no message", vec![], vec![], 3),
            ("bi_125", vec![("grpc-timeout", "abc")], framed(0, &good), 3),
            ("an hour is enough", vec![("grpc-timeout", "1H"), ("x-scope-orgid", "tenant")], framed(0, &good), 0),
        ] {
            let reply = wire.grpc(&headers, body).await;
            assert_eq!(reply.grpc_status, Some(expected), "{what}: {reply:?}");
            let accepted = if expected == 12 { "identity,gzip,zstd" } else { "" };
            assert_eq!(reply.header("grpc-accept-encoding"), accepted, "{what}");
        }
        let late = wire.grpc(&[("grpc-timeout", "1n")], framed(0, &request(1, 8).encode_to_vec())).await;
        assert!(matches!(late.grpc_status, Some(0 | 14)), "bi_124: {late:?}");
        let mut wire = Wire::connect(server.addresses.otlp_http, Transport::Protobuf).await;
        let members = [Coding::Gzip.encode(&good), Coding::Gzip.encode(b"")].concat();
        let skippable = [b"\x50\x2a\x4d\x18\x00\x00\x00\x00".repeat(1_000), Coding::Zstd.encode(&good)].concat();
        for (what, coding, body, expected) in [
            ("bi_096: members", "gzip", members, 200),
            ("bi_096: nothing", "gzip", Coding::Gzip.encode(b""), 200),
            ("bi_099", "zstd", skippable, 200),
            ("bi_101", "GZIP", gzip.clone(), 200),
            ("bi_101: identity", "identity", good.clone(), 200),
            ("bi_101: empty", "", good.clone(), 200),
            ("bi_102", "gzip, gzip", gzip.clone(), 415),
            ("otlp_48: a parameter", "gzip;q=1", gzip.clone(), 415),
        ] {
            let reply = wire.http(&[("content-encoding", coding)], body).await;
            assert_eq!(reply.status, expected, "{what}: {reply:?}");
        }
    });
}

fn rss_mib(server: &ChildServer, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Zeros that gzip makes a thousandth of.
fn bomb(mib: usize) -> Vec<u8> {
    Coding::Gzip.encode(&vec![0; mib << 20])
}

#[test]
fn bi_095_sec_01_sec_02_bombs_side_by_side_stay_inside_the_memory_and_honest_clients_are_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = ChildServer::from(&mut serve(dir.path())).expect("it starts");
    let address: SocketAddr = server.otlp_http.parse().expect("an address");
    let before = rss_mib(&server, "VmHWM:");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let structure = Coding::Gzip
        .encode(&[&b"\x0a\x80\x80\x80\x02\x12\xfc\xff\xff\x01"[..], &[0x12, 0x00].repeat(2 << 20)].concat());
    let zstd = Coding::Zstd.encode(&vec![0; 80 << 20]);
    let bombs = [("gzip", bomb(80)), ("zstd", zstd), ("gzip", structure)];
    runtime.block_on(async {
        let attackers: Vec<_> = (0..12)
            .map(|at| {
                let (coding, body) = bombs[at % bombs.len()].clone();
                tokio::spawn(async move {
                    for _ in 0..3 {
                        let mut wire = Wire::connect(address, Transport::Protobuf).await;
                        let reply = wire.try_http(&[("content-encoding", coding)], body.clone()).await;
                        let reply = reply.expect("the refusal arrives, however early it was made");
                        assert!(matches!(reply.status, 400 | 413 | 503), "{reply:?}");
                    }
                })
            })
            .collect();
        let mut honest = Wire::connect(address, Transport::Grpc).await;
        let mut stored = 0;
        for first in 0..50 {
            let body = request(10, first * 10 + 1).encode_to_vec();
            let reply = honest.export(Coding::Identity, &body).await;
            assert!(matches!(reply.grpc_status, Some(0 | 14)), "{reply:?}");
            stored += i32::from(reply.grpc_status == Some(0));
        }
        assert!(0 < stored, "honest clients are served meanwhile");
        for attacker in attackers {
            attacker.await.expect("every bomb is answered");
        }
        let reply = honest.export(Coding::Identity, &request(1, 9_999).encode_to_vec()).await;
        assert_eq!(reply.grpc_status, Some(0), "all permits are back");
    });
    let grown = rss_mib(&server, "VmHWM:") - before;
    assert!(grown <= 2 * 64, "bombs took {grown} MiB; the byte budget is 64 MiB");
}

#[test]
fn sec_04_promised_lengths_reserve_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = ChildServer::from(&mut serve(dir.path())).expect("it starts");
    let address: SocketAddr = server.otlp_http.parse().expect("an address");
    let before = rss_mib(&server, "VmRSS:");
    let promises: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all((export_head(64 << 20) + "12345").as_bytes()).expect("it is sent");
            stream
        })
        .collect();
    block_on(async {
        let mut honest = Wire::connect(address, Transport::Grpc).await;
        for first in 0..20 {
            let reply = honest.export(Coding::Identity, &request(1, first + 1).encode_to_vec()).await;
            assert_eq!(reply.grpc_status, Some(0), "honest clients are served meanwhile: {reply:?}");
        }
    });
    let grown = rss_mib(&server, "VmRSS:").saturating_sub(before);
    assert!(grown <= 32, "200 promises of 64 MiB took {grown} MiB");
    drop(promises);
    assert_eq!(get(&format!("http://{}/healthz", server.http), &[]).status, 200);
}
