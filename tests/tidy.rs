//! What a machine can hold about the shape of the code, a machine holds. Each failure names the place and the fix.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file: think at 400, stop at 600.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, and of nine functions out of ten.
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_P90: usize = 35;
/// Nothing checked in is larger.
const FILE_BYTES_MAX: u64 = 500 * 1024;

/// Modules by layer; a module imports from lower layers, and from its own layer only where `SIDEWAYS` says so.
const LAYERS: [&[&str]; 6] = [
    &["model", "limits", "clock", "telemetry"],
    &["otlp", "latency", "block"],
    &["journal", "store"],
    &["ingest", "query"],
    &["api", "feed"],
    &["config", "cli"],
];
/// L0 is one layer of four words that know each other; the command line reads the settings.
const SIDEWAYS: [(&str, &str); 5] =
    [("model", "limits"), ("clock", "model"), ("limits", "model"), ("telemetry", "model"), ("cli", "config")];
/// What `api` must not see although it lies below: questions and exports go through `query` and `ingest`.
const HIDDEN_FROM_API: [&str; 4] = ["store", "journal", "block", "latency"];

/// Foreign crates and the only places that may name them.
const DOORS: [(&str, &[&str]); 20] = [
    ("sled", &["store/engine.rs"]),
    ("hdrhistogram", &["latency/"]),
    ("prost", &["otlp/", "api/", "feed/", "cli/shop/"]),
    ("tonic", &["api/", "cli/traffic.rs"]),
    ("opentelemetry_proto", &["otlp/", "api/", "cli/shop/", "cli/traffic.rs"]),
    ("axum", &["api/"]),
    ("tokio", &["api/", "ingest/queue.rs", "cli/serve.rs", "cli/traffic.rs"]),
    ("serde", &["api/", "config.rs", "cli/"]),
    ("serde_json", &["api/", "cli/"]),
    ("std::env", &["config.rs"]),
    ("std::fs", &["journal/", "store/", "api/watched.rs", "feed/", "config.rs", "cli/"]),
    ("hyper", &["api/listen/"]),
    ("hyper_util", &["api/listen/"]),
    ("rustls", &["api/listen/tls.rs"]),
    ("anyhow", &["cli/"]),
    ("winnow", &["query/traceql/"]),
    ("regex", &["query/traceql/", "query/promql/"]),
    ("promql_parser", &["query/promql/parse.rs"]),
    ("snap", &["feed/"]),
    ("ureq", &["feed/", "cli/"]),
];

const BANNED_NAMES: [&str; 7] = ["util", "utils", "common", "misc", "manager", "helpers", "info"];

#[derive(Debug)]
struct Source {
    /// Below `src/`, with forward slashes.
    name: String,
    text: String,
}

impl Source {
    /// Lines in front of the inline tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/") || self.name.ends_with("samples.rs")
    }

    fn module(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or_default()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the project is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    let rust = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let sources: Vec<Source> = rust
        .map(|path| {
            let name = path.strip_prefix(root().join("src")).expect("it lies below src").display().to_string();
            Source { name, text: fs::read_to_string(&path).expect("a source is readable text") }
        })
        .collect();
    assert!(30 < sources.len(), "the walk found the sources");
    sources
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[track_caller]
fn assert_none(faults: &[String], fix: &str) {
    assert!(faults.is_empty(), "{}\n{fix}", faults.join("\n"));
}

/// `crate::name` wherever it stands in a line.
fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, found)| {
        let rest = &line[at + found.len()..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

#[test]
fn imports_point_downwards() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some(own) = layer(source.module()) else { continue };
        for (number, line) in source.code() {
            for target in crate_paths(line).filter(|target| *target != source.module()) {
                let Some(other) = layer(target) else { continue };
                let sideways = other == own && SIDEWAYS.contains(&(source.module(), target));
                let hidden = source.module() == "api" && HIDDEN_FROM_API.contains(&target);
                if (own <= other && !sideways) || hidden {
                    faults.push(format!("src/{}:{number} names crate::{target}", source.name));
                }
            }
        }
    }
    assert_none(&faults, "a module names only lower layers (ARCHITECTURE.md, Layers); move the code or pass a value");
}

#[test]
fn every_module_is_in_a_layer() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs is readable");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let faults: Vec<String> = modules.filter(|module| layer(module).is_none()).map(str::to_owned).collect();
    assert_none(&faults, "give each new module a place in LAYERS, and in ARCHITECTURE.md");
}

#[test]
fn foreign_crates_come_in_through_their_door() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            for (name, doors) in DOORS {
                let path = format!("{name}::");
                let named = line
                    .match_indices(&path)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
                let named = named || line.trim_start().starts_with(&format!("use {name};"));
                if named && !doors.iter().any(|door| source.name.starts_with(door)) {
                    faults.push(format!("src/{}:{number} names {name}, allowed in {}", source.name, doors.join(" ")));
                }
            }
        }
    }
    assert_none(&faults, "one door per foreign thing: wrap it where it is allowed");
}

#[test]
fn files_say_what_they_are_and_fit_in_the_head() {
    let mut faults = Vec::new();
    for source in &sources() {
        let lines = source.text.lines().count();
        if FILE_LINES_MAX < lines {
            faults.push(format!("src/{} has {lines} lines, at most {FILE_LINES_MAX}: split it", source.name));
        }
        if !source.is_test() && !source.text.starts_with("//!") {
            faults.push(format!("src/{} does not begin with //! and what it is", source.name));
        }
        if let Some(at) = source.text.find(|c: char| !c.is_ascii()) {
            let line = source.text[..at].lines().count();
            faults.push(format!("src/{}:{line} is not ASCII: write \\u{{..}}", source.name));
        }
        let stem = Path::new(&source.name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if BANNED_NAMES.contains(&stem.as_str()) || BANNED_NAMES.contains(&source.module()) {
            faults.push(format!("src/{}: a file is named for the noun it holds", source.name));
        }
        if source.text.contains("FIXME") {
            faults.push(format!("src/{} holds a FIXME: fix it", source.name));
        }
    }
    assert_none(&faults, "see each line");
}

/// (name, lines) of each function, told by indentation: rustfmt closes a function where it began.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    for (number, line) in source.code() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        let begins = trimmed.strip_prefix("pub ").unwrap_or(trimmed);
        let begins =
            begins.split_once(") ").filter(|(head, _)| head.starts_with("pub(")).map_or(begins, |(_, rest)| rest);
        let begins = begins.strip_prefix("async ").or(begins.strip_prefix("const ")).unwrap_or(begins);
        if let Some(rest) = begins.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            open.push((indent, name, number));
        }
        if trimmed == "}"
            && let Some(at) = open.iter().rposition(|(began, ..)| *began == indent)
        {
            let (_, name, began) = open.remove(at);
            found.push((name, number + 1 - began));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    let mut lengths = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (name, lines) in functions(source) {
            lengths.push(lines);
            if FUNCTION_LINES_MAX < lines {
                faults.push(format!("src/{}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}", source.name));
            }
        }
    }
    assert_none(&faults, "push the loops down into functions of their own");
    lengths.sort_unstable();
    assert!(300 < lengths.len(), "the functions were found: {}", lengths.len());
    let p90 = lengths[lengths.len() * 9 / 10];
    assert!(p90 <= FUNCTION_LINES_P90, "nine functions of ten have at most {FUNCTION_LINES_P90} lines, now {p90}");
}

#[test]
fn every_setting_is_in_the_manual() {
    let config = fs::read_to_string(root().join("src/config.rs")).expect("src/config.rs is readable");
    let manual = fs::read_to_string(root().join("README.md")).expect("README.md is readable");
    let config =
        config.split_once("pub struct RawConfig").and_then(|(_, from)| from.split_once("\n}")).unwrap_or_default().0;
    let keys = config.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": Option<"));
    let keys: Vec<String> = keys.map(|(name, _)| name.replace('_', "-")).collect();
    assert!(10 < keys.len(), "the settings were found: {keys:?}");
    let missing: Vec<String> = keys.into_iter().filter(|key| !manual.contains(&format!("`{key}`"))).collect();
    assert_none(&missing, "add each setting to the table in README.md, in backquotes");
}

#[test]
fn nothing_large_is_checked_in() {
    let mut paths = Vec::new();
    for dir in ["src", "tests", "benches", "docs", "proto"] {
        if root().join(dir).exists() {
            files_below(&root().join(dir), &mut paths);
        }
    }
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    let large: Vec<String> =
        paths.iter().filter(|path| FILE_BYTES_MAX < size(path)).map(|path| path.display().to_string()).collect();
    assert_none(&large, "make large data in the test that needs it");
}
