//! HTTP/2 frames that no client library sends, by the thousand: answered, ignored or cut off, in little memory, and an honest
//! client on another connection is served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message as _;

use crate::support::{ChildServer, TestServer, block_on, request, serve};
use crate::wire::{Coding, Transport, Wire};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `POST /v1/traces` in HPACK, every field spelled out.
const HEAD: &[u8] = b"\x83\x86\x04\x0a/v1/traces\x01\x01a\x0f\x10\x10application/json";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

/// Kinds of the frames that come until the connection ends or says GOAWAY; each is told to `seen` at once.
fn heard(mut reader: TcpStream, mut seen: impl FnMut(u8)) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while reader.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        kinds.push(head[3]);
        seen(head[3]);
        let mut payload = vec![0; length];
        if reader.read_exact(&mut payload).is_err() || head[3] == GOAWAY {
            break;
        }
    }
    kinds
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the port answers");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    stream
}

/// Sends the preface and what `frames` makes, as long as the server takes it; the kinds of frames that came back.
fn flood(address: SocketAddr, frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut stream = connect(address);
    let reader = stream.try_clone().expect("a second handle");
    let heard = std::thread::spawn(move || heard(reader, |_| {}));
    let mut batch = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    for frame in frames {
        batch.extend(frame);
        if 16 << 10 < batch.len() {
            if stream.write_all(&batch).is_err() {
                break;
            }
            batch.clear();
        }
    }
    let _gone = stream.write_all(&batch);
    let _gone = stream.shutdown(std::net::Shutdown::Write);
    heard.join().expect("no panic")
}

fn rss_kib(server: &ChildServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the field");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Runs a flood beside an honest client; what came back. Memory may grow by `mib_max` MiB.
#[track_caller]
fn beside_an_honest_client(mib_max: u64, frames: impl Iterator<Item = Vec<u8>> + Send) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = ChildServer::from(&mut serve(dir.path())).expect("it starts");
    let address: SocketAddr = server.otlp_http.parse().expect("an address");
    let honest = |first: u64| {
        block_on(async {
            let mut wire = Wire::connect(address, Transport::Grpc).await;
            for at in 0..20 {
                let reply = wire.export(Coding::Identity, &request(1, first + at).encode_to_vec()).await;
                assert_eq!(reply.grpc_status, Some(0), "an honest client: {reply:?}");
            }
        });
    };
    honest(1);
    let before = rss_kib(&server);
    let kinds = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(address, frames));
        honest(100);
        flood.join().expect("no panic")
    });
    let grown = rss_kib(&server).saturating_sub(before) / 1024;
    assert!(grown <= mib_max, "the flood took {grown} MiB");
    honest(200);
    kinds
}

#[test]
fn sec_05_bi_121_a_rapid_reset_ends_in_goaway() {
    let frames = (0..20_000_u32).flat_map(|at| {
        let stream = 2 * at + 1;
        [frame(HEADERS, END_HEADERS, stream, HEAD), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
    });
    let kinds = beside_an_honest_client(16, frames);
    assert_eq!(kinds.last(), Some(&GOAWAY), "{} frames came back", kinds.len());
}

#[test]
fn sec_06_bi_121_endless_continuations_end_the_connection() {
    let field = b"\x00\x01x\x7f\x00".as_slice();
    let piece = [field, &[b'v'; 127]].concat().repeat(100);
    let frames =
        std::iter::once(frame(HEADERS, 0, 1, HEAD)).chain((0..20_000).map(move |_| frame(CONTINUATION, 0, 1, &piece)));
    let kinds = beside_an_honest_client(4, frames);
    assert!(kinds.len() < 10, "it is cut off: {} frames came back", kinds.len());
}

#[test]
fn sec_07_bi_122_floods_of_small_frames_are_ignored_or_cut_off() {
    let open = || std::iter::once(frame(HEADERS, END_HEADERS, 1, HEAD));
    let empty_data = open().chain((0..100_000).map(|_| frame(DATA, 0, 1, b"")));
    let _kinds = beside_an_honest_client(4, empty_data);
    let settings = (0..100_000).map(|_| frame(SETTINGS, 0, 0, b""));
    let _kinds = beside_an_honest_client(4, settings);
    let pings = (0..100_000_u64).map(|at| frame(PING, 0, 0, &at.to_be_bytes()));
    let _kinds = beside_an_honest_client(4, pings);
    let priorities = (0..100_000_u32).map(|at| frame(PRIORITY, 0, 2 * at + 1, b"\x00\x00\x00\x00\x01"));
    let _kinds = beside_an_honest_client(4, priorities);
    let windows = open().chain((0..100_000).map(|_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())));
    let _kinds = beside_an_honest_client(4, windows);
    let nothing = open().chain((0..100).map(|_| frame(WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes())));
    assert_eq!(beside_an_honest_client(4, nothing).last(), Some(&GOAWAY), "a window of nothing is an error");
}

#[test]
fn otlp_08_pings_of_a_client_without_calls_are_answered_and_no_reason_to_say_goodbye() {
    let pings = (0..50_u64).map(|at| frame(PING, 0, 0, &at.to_be_bytes()));
    let kinds = beside_an_honest_client(4, pings);
    assert_eq!(kinds.iter().filter(|kind| matches!(**kind, PING)).count(), 50);
    assert!(!kinds[..kinds.len() - 1].contains(&GOAWAY), "only when the client has left: {kinds:?}");
}

#[test]
fn otlp_72_bi_134_a_server_that_stops_says_goaway() {
    let server = TestServer::new();
    let mut stream = connect(server.addresses.otlp_grpc);
    let reader = stream.try_clone().expect("a second handle");
    let (tell, told) = std::sync::mpsc::channel();
    let heard = std::thread::spawn(move || heard(reader, |kind| tell.send(kind).unwrap_or_default()));
    stream
        .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(PING, 0, 0, &[0; 8])].concat())
        .expect("it is sent");
    assert!(told.iter().any(|kind| kind == PING), "the connection is served");
    drop(server);
    assert!(heard.join().expect("no panic").contains(&GOAWAY));
}
