//! `check`, `backup`, `restore` and `export`, with the real binary on what real servers wrote.
//!
//! Two backups under load by default; `SPANDREL_BACKUPS=100 cargo test --test it upkeep` for the long form.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;
use spandrel::cli::shop::{Grouping, Requests, Shop};
use spandrel::model::{DurationNanos, UnixNanos};

use crate::support::{ChildServer, TestServer, block_on, flattened, grpc, now};

/// (trace id, span id)
type Ids = BTreeSet<(Vec<u8>, Vec<u8>)>;

fn spandrel(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
    command.args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and expects this exit code; what it said on stdout and stderr.
#[track_caller]
fn run(code: i32, args: &[&str]) -> (String, String) {
    let output = spandrel(args);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "spandrel {args:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

fn serve(dir: &Path, more: &[&str]) -> ChildServer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
    let command = command.args(["serve", "--log-format", "json", "--otlp-grpc", "127.0.0.1:0"]);
    let command = command.args(["--otlp-http", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]);
    ChildServer::from(command.arg(dir).args(more)).expect("it starts")
}

fn requests(shop: &mut Shop, traces: usize, at: UnixNanos) -> Vec<ExportTraceServiceRequest> {
    let mut requests = Requests::new(Grouping::Process);
    let mut all: Vec<_> = (0..traces).flat_map(|_| requests.add(shop.next_trace(at))).collect();
    all.extend(requests.flush());
    all
}

fn ids(data: &TracesData) -> Ids {
    let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| (span.trace_id.clone(), span.span_id.clone())).collect()
}

fn as_data(requests: &[ExportTraceServiceRequest]) -> TracesData {
    TracesData { resource_spans: requests.iter().flat_map(|request| request.resource_spans.clone()).collect() }
}

/// Sends all of them; each is acknowledged.
fn send(server: &ChildServer, requests: &[ExportTraceServiceRequest]) {
    block_on(async {
        let mut client = grpc(server.otlp_grpc.parse().expect("an address")).await;
        for request in requests {
            let _stored = client.export(request.clone()).await.expect("it is stored");
        }
    });
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("ASCII")).collect();
    names.sort();
    names
}

fn partitions(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.join("partitions");
    names(&dir).iter().map(|name| dir.join(name)).collect()
}

fn sealed(dir: &Path) -> Vec<PathBuf> {
    partitions(dir).into_iter().filter(|partition| partition.join("SEALED").exists()).collect()
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_mins(1), "it took more than a minute: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            let _bytes = fs::copy(from, to).expect("a copy");
        }
    }
}

/// Exports everything as protobuf.
fn exported(server_or_dir: &[&str], dir: &Path) -> TracesData {
    let file = dir.join("export.pb");
    let mut args = vec!["export", "--format", "protobuf", "--output", shown(&file)];
    args.extend(server_or_dir);
    let (_, said) = run(0, &args);
    assert!(said.contains("spans exported"), "{said}");
    TracesData::decode(fs::read(&file).expect("the file").as_slice()).expect("the messages are one message")
}

/// A directory with a sealed and an unsealed partition, cleanly stopped; everything that is in it.
fn data_dir(dir: &Path) -> TracesData {
    let mut shop = Shop::new(5);
    let mut server = serve(dir, &["--partition-age", "300ms"]);
    let mut all = requests(&mut shop, 40, now());
    send(&server, &all);
    wait_until("a partition is sealed", || !sealed(dir).is_empty());
    assert_eq!(server.terminate(Duration::from_secs(20)), Some(0));
    let mut server = serve(dir, &[]);
    let more = requests(&mut shop, 40, now());
    send(&server, &more);
    assert_eq!(server.terminate(Duration::from_secs(20)), Some(0));
    all.extend(more);
    as_data(&all)
}

fn url(server: &ChildServer) -> String {
    format!("http://{}", server.http)
}

fn rounds() -> usize {
    std::env::var("SPANDREL_BACKUPS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

/// Sends until told to stop; what was acknowledged is noted at once. The first spans are old enough to leave by
/// retention while the others come: those are of tomorrow, so that none of them does.
fn keep_sending(server: &ChildServer, dir: &Path, acknowledged: &Mutex<Ids>, enough: &AtomicBool) {
    let mut shop = Shop::new(25);
    let tomorrow = UnixNanos(now().0).saturating_add(DurationNanos::from_secs(60 * 60 * 12));
    send(server, &requests(&mut shop, 20, now()));
    wait_until("the old spans have a partition for themselves", || 1 < partitions(dir).len());
    block_on(async {
        let mut client = grpc(server.otlp_grpc.parse().expect("an address")).await;
        while !enough.load(Ordering::SeqCst) {
            for request in requests(&mut shop, 3, tomorrow) {
                if client.export(request.clone()).await.is_ok() {
                    acknowledged.lock().expect("no panic").extend(ids(&as_data(&[request])));
                }
            }
        }
    });
}

#[test]
fn rel_25_every_span_acknowledged_before_a_backup_is_in_what_is_restored() {
    let (source, backup, room) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(source.path(), &["--partition-age", "1s", "--retention", "3s"]);
    let (acknowledged, stop) = (Mutex::new(Ids::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _sender = scope.spawn(|| keep_sending(&server, source.path(), &acknowledged, &stop));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds() {
                let enough = 300 * (round + 1);
                wait_until("spans arrive", || enough < acknowledged.lock().unwrap().len());
                wait_until("partitions are sealed", || round < sealed(source.path()).len());
                let before = acknowledged.lock().unwrap().clone();
                let (said, _) = run(0, &["backup", shown(backup.path()), "--data-dir", shown(source.path())]);
                let restored = room.path().join(format!("restored-{round}"));
                let _said = run(0, &["restore", shown(backup.path()), "--data-dir", shown(&restored)]);
                let _sound = run(0, &["check", "--data-dir", shown(&restored)]);
                let second = serve(&restored, &[]);
                assert_eq!(second.get("/ready").json()["reasons"], serde_json::json!([]), "nothing in quarantine");
                let found = ids(&exported(&["--url", &url(&second)], room.path()));
                let lost: Vec<_> = before.difference(&found).collect();
                assert!(lost.is_empty(), "round {round}: {} of {} are lost\n{said}", lost.len(), before.len());
            }
            let metrics = || server.get("/metrics").text();
            wait_until("retention took a partition", || {
                !metrics().contains("spandrel_store_partitions_dropped_total 0")
            });
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_second_backup_copies_only_what_is_new_and_deletes_nothing() {
    let (source, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _all = data_dir(source.path());
    let into = ["backup", shown(backup.path()), "--data-dir", shown(source.path())];
    let (said, _) = run(0, &into);
    assert!(said.contains("0 partitions there already"), "{said}");
    let n_sealed = sealed(source.path()).len();
    let (said, _) = run(0, &into);
    assert!(said.contains(&format!(" {n_sealed} partition")) && said.contains("there already"), "{said}");
    let oldest = sealed(source.path()).remove(0);
    fs::remove_dir_all(&oldest).unwrap();
    let (said, _) = run(0, &into);
    let name = oldest.file_name().unwrap().to_str().unwrap();
    assert!(said.contains("no longer in the data directory") && said.contains(name), "{said}");
    assert!(backup.path().join("partitions").join(name).join("SEALED").exists(), "it stays");
    let _sound = run(0, &["check", "--data-dir", shown(backup.path())]);
}

#[test]
fn a_backup_leaves_out_what_is_damaged_and_says_so() {
    let (source, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _all = data_dir(source.path());
    flip(&sealed(source.path()).remove(0).join("BLOCKS"), 1_000);
    let (_, said) = run(1, &["backup", shown(backup.path()), "--data-dir", shown(source.path())]);
    assert!(said.contains("BLOCKS differs from what SEALED says"), "{said}");
    assert!(backup.path().join("BACKUP").exists(), "the rest is a backup");
    let _sound = run(0, &["check", "--data-dir", shown(backup.path())]);
}

#[test]
fn paths_may_be_names_in_the_working_directory() {
    let room = tempfile::tempdir().unwrap();
    let _all = data_dir(&room.path().join("spandrel-data"));
    for args in [&["backup", "b"][..], &["restore", "b", "--data-dir", "r"], &["check", "--data-dir", "r"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
        let output = command.args(args).current_dir(room.path()).output().expect("the binary runs");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn restore_refuses_what_is_unfinished_altered_or_in_the_way() {
    let (source, backup, room) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _all = data_dir(source.path());
    let restored = room.path().join("restored");
    let restore = ["restore", shown(backup.path()), "--data-dir", shown(&restored)];
    let (_, said) = run(1, &restore);
    assert!(said.contains("not a finished backup"), "{said}");
    let _said = run(0, &["backup", shown(backup.path()), "--data-dir", shown(source.path())]);
    let (_, said) = run(1, &["restore", shown(backup.path()), "--data-dir", shown(source.path())]);
    assert!(said.contains("is not empty") && said.contains(shown(source.path())), "{said}");
    let list = fs::read(backup.path().join("BACKUP")).unwrap();
    fs::remove_file(backup.path().join("BACKUP")).unwrap();
    let (_, said) = run(1, &restore);
    assert!(said.contains("not a finished backup"), "{said}");
    fs::write(backup.path().join("BACKUP"), list).unwrap();
    let journal = partitions(backup.path()).into_iter().find(|partition| partition.join("journal").exists()).unwrap();
    flip(&journal.join("journal").join(&names(&journal.join("journal"))[0]), 100);
    let (_, said) = run(1, &restore);
    assert!(said.contains("differs") && said.contains("journal/"), "{said}");
    assert!(!restored.exists(), "what was not restored whole has no name");
    let (_, said) = run(1, &restore);
    assert!(said.contains("interrupted restore"), "{said}");
    let (_, said) = run(1, &["backup", shown(room.path()), "--data-dir", shown(source.path())]);
    assert!(said.contains("neither empty nor a backup"), "{said}");
    let (_, said) = run(1, &["backup", shown(&source.path().join("x")), "--data-dir", shown(source.path())]);
    assert!(said.contains("inside the data directory"), "{said}");
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("the file");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("it can be written");
}

/// Where the header of a block lies in a database.
fn block_header(db: &Path) -> usize {
    let bytes = fs::read(db).expect("the database");
    bytes.windows(4).rposition(|window| window == b"SPBL").expect("a block") + 8
}

#[test]
fn check_names_a_flipped_byte_in_each_kind_of_file_and_repair_moves_it() {
    let room = tempfile::tempdir().unwrap();
    let good = room.path().join("good");
    let all = data_dir(&good);
    let (said, _) = run(0, &["check", "--data-dir", shown(&good)]);
    assert!(said.contains("sound: "), "{said}");
    let (said, _) = run(0, &["check", "--data-dir", shown(&good)]);
    assert!(said.contains("sound: "), "a check changes nothing that a check sees: {said}");
    let first = sealed(&good)[0].file_name().unwrap().to_str().unwrap().to_owned();
    let last = partitions(&good).pop().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let segment = names(&good.join("partitions").join(&last).join("journal"))[0].clone();
    let header = block_header(&good.join("partitions").join(&last).join("store/db"));
    for (file, at, expected, moved) in [
        (format!("{first}/SEALED"), 40, "SEALED is not whole", Some(format!("{first}.0"))),
        (format!("{first}/BLOCKS"), 1_000, "BLOCKS has the hash", Some(format!("{first}.0"))),
        (format!("{first}/TRACES"), 30, "TRACES has the hash", Some(format!("{first}.0"))),
        (format!("{last}/store/db"), header, "database: ", Some(format!("{last}-store.0"))),
        (format!("{last}/journal/{segment}"), 200, "bytes 24 to ", None),
        (format!("{last}/journal/{segment}"), 3, "bytes 0 to 24 are damaged", None),
    ] {
        let dir = room.path().join(format!("flipped-{}", file.replace('/', "-")));
        let _gone = fs::remove_dir_all(&dir);
        copy_tree(&good, &dir);
        flip(&dir.join("partitions").join(&file), at);
        let (said, _) = run(1, &["check", "--data-dir", shown(&dir)]);
        let partition = file.split('/').next().unwrap();
        assert!(said.contains(&format!("DAMAGED  {partition}")) && said.contains(expected), "{file}: {said}");
        assert!(names(&dir.join("quarantine")).is_empty(), "nothing moves by itself");
        let (json, _) = run(1, &["check", "--json", "--repair", "--data-dir", shown(&dir)]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = json["partitions"].as_array().unwrap().iter().find(|found| found["name"] == partition).unwrap();
        assert_eq!(found["moved_to"].as_str().map(str::to_owned), moved, "{file}: {json}");
        assert_eq!(names(&dir.join("quarantine")), moved.iter().cloned().collect::<Vec<_>>(), "{file}");
        let server = serve(&dir, &[]);
        let ready = server.get("/ready");
        assert_eq!(ready.status, 200, "{file}: {}", ready.text());
        if let Some(moved) = &moved {
            assert!(ready.text().contains(moved), "{file}: {}", ready.text());
        }
        if !moved.as_ref().is_some_and(|moved| moved.starts_with(&first)) {
            assert_eq!(ids(&exported(&["--url", &url(&server)], room.path())), ids(&all), "{file}: nothing is lost");
        }
    }
}

#[test]
fn check_refuses_what_a_server_uses_and_what_is_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_, said) = run(2, &["check", "--data-dir", shown(&dir.path().join("none"))]);
    assert!(said.contains("is no data directory"), "{said}");
    assert!(!dir.path().join("none").exists(), "looking makes nothing");
    let server = serve(dir.path(), &[]);
    let (_, said) = run(2, &["check", "--data-dir", shown(dir.path())]);
    assert!(said.contains(&format!("process {}", server.child.id())) && said.contains("backup"), "{said}");
    let (_, said) = run(1, &["export", "--data-dir", shown(dir.path())]);
    assert!(said.contains(&format!("process {}", server.child.id())), "{said}");
}

#[test]
fn what_is_exported_in_either_form_loads_into_another_server_as_the_same_spans() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().join("data");
    let mut all = flattened(&data_dir(&dir));
    let mut server = serve(&dir, &[]);
    let more = requests(&mut Shop::new(6), 20, now());
    send(&server, &more);
    all.extend(flattened(&as_data(&more)));
    assert_eq!(flattened(&exported(&["--url", &url(&server)], room.path())), all, "heads and blocks");
    for format in ["jsonl", "protobuf"] {
        let file = room.path().join(format);
        let _said = run(0, &["export", "--url", &url(&server), "--format", format, "-o", shown(&file)]);
        assert_loads_as(&file, &all, room.path());
    }
    server.kill();
    assert_eq!(flattened(&exported(&["--data-dir", shown(&dir)], room.path())), all, "also what is in no block yet");
    assert_eq!(flattened(&exported(&["--data-dir", shown(&dir)], room.path())), all, "and again");
    let file = room.path().join("offline.jsonl");
    let _said = run(0, &["export", "--data-dir", shown(&dir), "-o", shown(&file)]);
    assert_loads_as(&file, &all, room.path());
}

type Flattened =
    std::collections::BTreeMap<(Vec<u8>, i32), (String, String, opentelemetry_proto::tonic::trace::v1::Span)>;

#[track_caller]
fn assert_loads_as(file: &Path, all: &Flattened, room: &Path) {
    let second = TestServer::new();
    let _said = run(0, &["load", "--url", &format!("http://{}", second.addresses.otlp_http), shown(file)]);
    let url = format!("http://{}", second.addresses.http);
    assert_eq!(&flattened(&exported(&["--url", &url], room)), all, "{}", file.display());
}

#[test]
fn an_export_is_of_the_service_and_the_window_asked_for() {
    let room = tempfile::tempdir().unwrap();
    let server = serve(&room.path().join("data"), &[]);
    let all = requests(&mut Shop::new(7), 30, now());
    send(&server, &all);
    let ends = |data: &TracesData| -> Vec<u64> {
        let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let mut ends: Vec<u64> = scopes.flat_map(|scope| &scope.spans).map(|span| span.end_time_unix_nano).collect();
        ends.sort_unstable();
        ends
    };
    let sent = ends(&as_data(&all));
    let middle = sent[sent.len() / 2];
    let (url, middle_text) = (url(&server), middle.to_string());
    let before = ends(&exported(&["--url", &url, "--end", &middle_text], room.path()));
    let after = ends(&exported(&["--url", &url, "--start", &middle_text], room.path()));
    assert_eq!(before, sent.iter().copied().filter(|end| *end < middle).collect::<Vec<_>>());
    assert_eq!(after, sent.iter().copied().filter(|end| middle <= *end).collect::<Vec<_>>());
    let checkout = exported(&["--url", &url, "--service", "checkout", "--last", "1h"], room.path());
    assert!(!checkout.resource_spans.is_empty());
    for resource in &checkout.resource_spans {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert!(format!("{attributes:?}").contains("\"checkout\""), "{attributes:?}");
    }
    let (_, said) = run(1, &["export", "--url", &url, "--start", "yesterday"]);
    assert!(said.contains("start=yesterday is not a time"), "{said}");
}
