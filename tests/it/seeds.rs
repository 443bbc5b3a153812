//! The seeds of the fuzz targets, run through the same functions without a fuzzer. Files named `find-*` were finds.
//!
//! `UPDATE_SEEDS=1 cargo test -- for_fuzzing sec_21` writes them anew, the finds aside: requests of the list of bad inputs
//! with few spans around the bad one, compressed bodies, journals whole and damaged, filters. (Blocks: `src/block/tests.rs`.)

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::write::{GzEncoder, ZlibEncoder};
use spandrel::journal::{Durability, Journal, JournalConfig, RealDisk, RecordLabel};

use crate::wire::Transport;
use crate::{corpus, zipkin};

#[expect(unreachable_pub, reason = "there it is a crate of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);
type Seeds = Vec<(String, Vec<u8>)>;

const TARGETS: [(&str, Target); 7] = [
    ("decode", targets::decode),
    ("json", targets::json),
    ("zipkin", targets::zipkin),
    ("body", targets::body),
    ("journal", targets::journal),
    ("block", targets::block),
    ("traceql", targets::traceql),
];
/// All seeds together.
const SEEDS_BYTES_MAX: u64 = 200 * 1024;
/// A longer one slows the fuzzer more than it shows it.
const SEED_BYTES_MAX: usize = 3 * 1024;

fn dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn sec_21_every_seed_and_every_find_of_fuzzing_passes() {
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        write("decode", &corpus::seeds(Transport::Protobuf, SEED_BYTES_MAX));
        write("json", &corpus::seeds(Transport::Json, SEED_BYTES_MAX));
        write("zipkin", &zipkin::seeds());
        write("body", &bodies());
        write("journal", &journals());
        write("traceql", &filters());
    }
    let mut bytes_of_all = 0;
    for (target, run) in TARGETS {
        let files: Vec<_> = std::fs::read_dir(dir(target)).expect("seeds").flatten().collect();
        assert!(5 < files.len(), "{target}: {} seeds", files.len());
        for file in files {
            let bytes = std::fs::read(file.path()).expect("a seed is readable");
            bytes_of_all += bytes.len() as u64;
            let passed = std::panic::catch_unwind(|| run(&bytes));
            assert!(passed.is_ok(), "{}", file.path().display());
        }
    }
    assert!(bytes_of_all <= SEEDS_BYTES_MAX, "{bytes_of_all} bytes of seeds");
}

/// Replaces all seeds of a target but finds.
fn write(target: &str, seeds: &Seeds) {
    let dir = dir(target);
    std::fs::create_dir_all(&dir).expect("a directory");
    for old in std::fs::read_dir(&dir).expect("seeds").flatten() {
        if !old.file_name().to_string_lossy().starts_with("find-") {
            std::fs::remove_file(old.path()).expect("it is ours");
        }
    }
    for (name, bytes) in seeds {
        std::fs::write(dir.join(name), bytes).expect("a seed");
    }
}

/// For target `body`: the compression, the limit in KiB, and the body.
fn bodies() -> Seeds {
    let text = b"a body that says the same, a body that says the same, a body that says something else. ".repeat(3);
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("it compresses")
    };
    let zlib = |bytes: &[u8], level| {
        let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("it compresses")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("it compresses");
    let zeros = vec![0; 300 * 1024];
    let bodies = [
        ("gzip", 0, gzip(&text)),
        ("gzip-of-nothing", 0, gzip(b"")),
        ("gzip-of-two", 0, [gzip(&text), gzip(b"more")].concat()),
        ("gzip-of-zeros", 0, gzip(&zeros)),
        ("gzip-of-gzip", 0, gzip(&gzip(&text))),
        ("gzip-cut", 0, gzip(&text)[..40].to_vec()),
        ("zstd", 1, zstd(&text)),
        ("zstd-of-nothing", 1, zstd(b"")),
        ("zstd-of-two", 1, [zstd(&text), zstd(b"more")].concat()),
        ("zstd-of-zeros", 1, zstd(&zeros)),
        ("zstd-skippable", 1, [b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(), zstd(&text)].concat()),
        ("deflate", 2, zlib(&text, 6)),
        ("deflate-stored", 2, zlib(&text, 0)),
        ("deflate-of-zeros", 2, zlib(&zeros, 9)),
    ];
    bodies.into_iter().map(|(name, kind, body)| (name.to_owned(), [&[kind, 200], body.as_slice()].concat())).collect()
}

/// Metrics queries, right and wrong.
const METRICS: [&str; 6] = [
    "{status=error && .a != nil} | rate() by(resource.service.name, span:kind) | topk(3) > 0.5 with(exemplars=7)",
    r#"({} | quantile_over_time(span."a b", .5, 0.99) by(name)) / ({} | count_over_time()) * 100ms"#,
    "{} | compare({duration > 1s}, 10, 1000, 2000) with(sample=true)",
    "1 - (({} | avg_over_time(duration)) - -2e3) != 0 | bottomk(1)",
    "{} | histogram_over_time(.size) by(.size",
    "({} | min_over_time(resource.x) >= 5",
];

/// For target `traceql`: filters and queries of the grammar's tests, and of metrics, right and wrong.
fn filters() -> Seeds {
    let list = |name: &str, take_every: usize| -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/query/traceql/tests").join(name);
        let list = std::fs::read_to_string(path).expect("the list of queries");
        let queries = list.lines().filter(|line| !line.is_empty() && !line.starts_with([' ', '#']));
        // Not all: the fuzzer makes the others of them.
        queries.step_by(take_every).map(str::to_owned).collect()
    };
    let filters = (0..).zip(list("filters.txt", 2)).map(|(no, text): (u32, _)| (format!("query-{:03}", 2 * no), text));
    let spansets = (0..).zip(list("spansets.txt", 3)).map(|(no, text): (u32, _)| (format!("spans-{no:03}"), text));
    let metrics = METRICS.iter().enumerate().map(|(no, query)| (format!("metrics-{no:03}"), (*query).to_owned()));
    filters.chain(spansets).chain(metrics).map(|(name, text)| (name, text.into_bytes())).collect()
}

/// For target `journal`: the mode and segments.
fn journals() -> Seeds {
    let whole = segment(&[b"first", b"", b"third record, somewhat longer", b"fourth"], 1);
    let next = segment(&[b"fifth", b"sixth"], 5);
    let mut altered = whole.clone();
    altered[24 + 62] ^= 1;
    let segments: [(&str, u8, Vec<u8>); 8] = [
        ("whole", 0, whole.clone()),
        ("covered", 0x20, whole.clone()),
        ("altered", 0, altered.clone()),
        ("cut", 0, whole[..whole.len() - 5].to_vec()),
        ("two", 0x30, [whole.clone(), next.clone()].concat()),
        ("twice", 3, [whole.clone(), whole.clone()].concat()),
        ("altered-then-another", 0, [altered, next].concat()),
        ("unwritten", 0, vec![0; 100]),
    ];
    segments.into_iter().map(|(name, mode, bytes)| (name.to_owned(), [&[mode], bytes.as_slice()].concat())).collect()
}

/// A segment without its unused end.
fn segment(payloads: &[&[u8]], first: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let config = JournalConfig { dir: dir.path().to_path_buf(), segment_bytes: 4096, durability: Durability::Fsync };
    let mut journal = Journal::new(config, Arc::new(RealDisk), 0, first);
    for payload in payloads {
        let _sequence = journal.append(RecordLabel::default(), payload).expect("it is appended");
        let _cost = journal.commit().expect("it is written");
    }
    drop(journal);
    let mut bytes = std::fs::read(dir.path().join("00000001.log")).expect("a segment");
    let written = 24 + payloads.iter().map(|payload| 60 + payload.len()).sum::<usize>();
    bytes.truncate(written);
    bytes
}
