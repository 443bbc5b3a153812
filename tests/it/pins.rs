//! Pins by hand, through the door and from the command line.

use std::fmt::Write as _;
use std::process::{Command, Output};

use serde_json::json;
use spandrel::api::access::{Scope, new_token};

use crate::support::{Answer, ChildServer, TestServer, answer, get, post, request, serve};

const TRACE: &str = "07070707070707070707070707070707";

fn url(server: &TestServer, path: &str) -> String {
    format!("http://{}/spandrel/v1/pins{path}", server.addresses.http)
}

fn pin(server: &TestServer, trace: &str, body: &serde_json::Value) -> Answer {
    post(&url(server, &format!("/{trace}")), &[], body.to_string().as_bytes())
}

fn delete(url: &str, headers: &[(&str, &str)]) -> Answer {
    let request = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent().delete(url);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call())
}

fn with_a_trace() -> TestServer {
    let server = TestServer::new();
    server.deliver(&request(3, 1));
    server
}

#[test]
fn a_trace_is_pinned_listed_and_let_go_and_a_restart_forgets_nothing() {
    let mut server = with_a_trace();
    let answer = pin(&server, TRACE, &json!({ "note": "slow \u{fc}ber all", "expires": "30d" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pinned = answer.json();
    assert_eq!((&pinned["trace_id"], &pinned["note"]), (&TRACE.into(), &"slow \u{fc}ber all".into()));
    let nanos = |of: &str| pinned[of].as_str().expect("a string").parse::<u64>().expect("a number");
    assert_eq!(
        (nanos("expires_unix_nano") - nanos("pinned_at_unix_nano")) / 1_000_000_000 / 3_600,
        30 * 24 - 1,
        "30 d"
    );
    server.restart();
    assert_eq!(server.json("/spandrel/v1/pins"), json!({ "pins": [pinned] }));
    let again = post(&url(&server, "/7070707070707070707070707070707"), &[], b"").json();
    assert_eq!((&again["trace_id"], &again["note"]), (&TRACE.into(), &"".into()), "a second pin replaces the first");
    assert_eq!(server.json("/spandrel/v1/pins")["pins"].as_array().map(Vec::len), Some(1));
    assert_eq!(delete(&url(&server, &format!("/{TRACE}")), &[]).status, 204);
    assert_eq!(server.json("/spandrel/v1/pins"), json!({ "pins": [] }));
    let gone = delete(&url(&server, &format!("/{TRACE}")), &[]);
    assert!(gone.status == 404 && gone.text().contains("is not pinned"), "{}", gone.text());
}

#[test]
fn a_pin_that_cannot_be_is_refused_and_changes_nothing() {
    let server = with_a_trace();
    let never = json!({ "expires": "never" });
    for (trace, body, status, says) in [
        ("0707", never.clone(), 404, "no span of trace 0000"),
        ("xyz", never.clone(), 400, "hex"),
        (TRACE, json!({ "expires": "yesterday" }), 400, "not a time to come"),
        (TRACE, json!({ "note": "x".repeat(1_025) }), 400, "1025 bytes"),
        (TRACE, json!({ "notes": "x" }), 400, "unknown field"),
        (TRACE, json!([1]), 400, "the body is not"),
        (TRACE, json!({ "note": "x".repeat(20_000) }), 413, ""),
    ] {
        let answer = pin(&server, trace, &body);
        assert!(
            answer.status == status && answer.text().contains(says),
            "{trace} {}: {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(server.json("/spandrel/v1/pins"), json!({ "pins": [] }));
    assert_eq!(pin(&server, TRACE, &never).json()["expires_unix_nano"], json!(null));
    let refused = pin(&server, TRACE, &json!({ "note": "x".repeat(1_025) }));
    assert_eq!((refused.status, server.json("/spandrel/v1/pins")["pins"][0]["note"].clone()), (400, json!("")));
}

#[test]
fn a_page_of_another_server_pins_nothing() {
    let server = with_a_trace();
    let url = url(&server, &format!("/{TRACE}"));
    let own = format!("http://{}", server.addresses.http);
    for foreign in ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"] {
        let refused = post(&url, &[("origin", foreign)], b"");
        assert!(refused.status == 403 && refused.text().contains("another server"), "{foreign}: {}", refused.text());
        assert_eq!(delete(&url, &[("origin", foreign)]).status, 403);
    }
    let rebound = [("origin", "http://evil.example:3200"), ("host", "evil.example:3200")];
    assert_eq!(post(&url, &rebound, b"").status, 403, "a name that leads here is not our name");
    assert_eq!(server.json("/spandrel/v1/pins"), json!({ "pins": [] }));
    assert_eq!(post(&url, &[("origin", &own)], b"").status, 200);
}

#[test]
fn pinning_needs_the_scope_admin_and_looking_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tokens.toml");
    let (mut tokens, mut file) = (Vec::new(), String::new());
    for (name, scope) in [("ingest", Scope::Ingest), ("query", Scope::Query), ("admin", Scope::Admin)] {
        let (token, entry) = new_token(name, &[scope], None).expect("randomness");
        let hash = entry.blake3;
        let _infallible = writeln!(file, "[[token]]\nname = {name:?}\nscopes = [{name:?}]\nblake3 = {hash:?}");
        tokens.push(format!("Bearer {token}"));
    }
    std::fs::write(&path, file).expect("it can be written");
    let server = TestServer::with(move |config| config.access.tokens = Some(path.clone()));
    let [ingest, query, admin] = &tokens[..] else { panic!("three") };
    let body = prost::Message::encode_to_vec(&request(3, 1));
    let headers = [("content-type", "application/x-protobuf"), ("authorization", ingest.as_str())];
    assert_eq!(post(&format!("http://{}/v1/traces", server.addresses.otlp_http), &headers, &body).status, 200);
    let one = url(&server, &format!("/{TRACE}"));
    for (token, may_look, may_pin) in [(ingest, 403, 403), (query, 200, 403), (admin, 200, 200)] {
        let headers = [("authorization", token.as_str())];
        assert_eq!(get(&url(&server, ""), &headers).status, may_look);
        assert_eq!(post(&one, &headers, b"").status, may_pin);
        assert_eq!(delete(&one, &headers).status, if may_pin == 200 { 204 } else { 403 });
    }
    assert_eq!(post(&one, &[], b"").status, 401);
}

fn spandrel(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spandrel")).args(args).output().expect("the binary runs")
}

#[track_caller]
fn run(args: &[&str]) -> String {
    let output = spandrel(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_command_line_pins_and_a_backup_has_the_pins() {
    let (dir, room) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = ChildServer::from(&mut serve(dir.path())).expect("it starts");
    let sent = post(
        &format!("http://{}/v1/traces", server.otlp_http),
        &[("content-type", "application/x-protobuf")],
        &prost::Message::encode_to_vec(&request(3, 1)),
    );
    assert_eq!(sent.status, 200);
    let at = format!("http://{}", server.http);
    let said = run(&["pin", TRACE, "--note", "why p99 rose", "--for", "30d", "--url", &at]);
    assert!(said.contains(TRACE) && said.contains("why p99 rose"), "{said}");
    assert_eq!(run(&["pins", "--url", &at]), said);
    let unknown = spandrel(&["pin", "1234", "--url", &at]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no span of trace"));
    let (backup, restored) = (room.path().join("backup"), room.path().join("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    let _said = run(&["backup", backup, "--data-dir", dir.path().to_str().unwrap()]);
    let _said = run(&["unpin", TRACE, "--url", &at]);
    assert!(run(&["pins", "--url", &at]).contains("no trace is pinned"));
    server.kill();
    let _said = run(&["restore", backup, "--data-dir", restored]);
    assert!(run(&["check", "--data-dir", restored]).contains("1 pinned trace"));
    let pins = std::path::Path::new(restored).join("pins");
    let mut bytes = std::fs::read(&pins).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&pins, bytes).unwrap();
    let damaged = spandrel(&["check", "--data-dir", restored]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("pins is not whole"));
    let server = ChildServer::start(std::path::Path::new(restored)).expect("it starts without them");
    assert!(server.get("/ready").text().contains("pins.0 is in quarantine"), "{}", server.get("/ready").text());
}
