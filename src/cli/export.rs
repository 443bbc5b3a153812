//! `spandrel export`: stored spans as OTLP, from a running server or from a directory that no server uses.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::api;
use crate::clock::Clock;
use crate::config::RawConfig;
use crate::ingest::Ingest;
use crate::journal::RealDisk;
use crate::model::UnixNanos;
use crate::query::{ExportFormat, ExportQuestion, Query};
use crate::store::{IdleDir, Store};
use crate::telemetry::Counters;

use super::client::{Client, Credentials};
use super::otlp_file::next_field;

/// How the last line of an export in JSON begins; what follows is `End`.
const END_OF_LINES: &[u8] = br#"{"resourceSpans":[],"spandrelExport":"#;
/// The same in protobuf: field 1000, a string.
const END_FIELD: u64 = 1000;

/// Flags of `export`.
#[derive(clap::Args, Debug)]
pub(super) struct ExportArgs {
    /// Server to export from
    #[arg(long, env = "SPANDREL_URL", default_value = "http://127.0.0.1:3200", value_name = "URL")]
    url: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Export from this directory instead, which no server may be using; its journals are replayed as by a start
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only spans that end at this time or later: RFC 3339, Unix seconds to nanoseconds, or "-15m"
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<String>,
    /// Only spans that end before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    end: Option<String>,
    /// Only spans that ended in this time until now, such as 1h
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["start", "end"])]
    last: Option<String>,
    /// Only spans of this `service.name`
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// JSON lines to read and to sift, protobuf to keep every bit
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// File to write [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One OTLP JSON document per line, about 2,000 spans each
    Jsonl,
    /// OTLP protobuf: messages one behind the other, which together are one message
    Protobuf,
}

/// What stands at the end of a server's export.
#[derive(Debug, Deserialize)]
struct End {
    spans: u64,
    coverage: Coverage,
}

#[derive(Debug, Deserialize)]
struct Coverage {
    reasons: Vec<String>,
}

/// Where the spans go.
struct Sink {
    out: BufWriter<Box<dyn Write>>,
    bar: ProgressBar,
}

/// 0 when everything that is selected was exported, 1 when something could not be read.
pub(super) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
        None => Box::new(io::stdout()),
    };
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")?);
    let mut sink = Sink { out: BufWriter::new(out), bar };
    let end = match &args.data_dir {
        Some(dir) => offline(dir, args, &mut sink),
        None => online(args, &mut sink),
    };
    let flushed = sink.out.flush();
    sink.bar.finish_and_clear();
    let end = match (end, flushed) {
        (Err(error), _) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        (end, flushed) => {
            let end = end?;
            flushed.context("cannot write the output")?;
            end
        }
    };
    eprintln!("{} spans exported", HumanCount(end.spans));
    for reason in &end.coverage.reasons {
        eprintln!("spandrel: not exported: {reason}");
    }
    Ok(if end.coverage.reasons.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bar.inc(bytes.len() as u64);
        self.out.write_all(bytes)
    }
}

impl ExportArgs {
    fn start(&self) -> Option<String> {
        self.last.as_ref().map(|last| format!("-{last}")).or_else(|| self.start.clone())
    }

    fn question(&self) -> anyhow::Result<ExportQuestion> {
        let now = Clock::system().now();
        let time = |name: &str, text: Option<String>| -> anyhow::Result<Option<UnixNanos>> {
            let Some(text) = text else { return Ok(None) };
            let parsed = api::parse_time(&text, now);
            Ok(Some(
                parsed
                    .with_context(|| format!("--{name} {text} is not a time, such as -15m or 2026-11-23T10:00:00Z"))?,
            ))
        };
        let start = time("start", self.start())?.unwrap_or_default();
        Ok(ExportQuestion { start, end: time("end", self.end.clone())?, service: self.service.clone() })
    }
}

fn online(args: &ExportArgs, sink: &mut Sink) -> anyhow::Result<End> {
    let start = args.start();
    let format = match args.format {
        Format::Jsonl => "jsonl",
        Format::Protobuf => "protobuf",
    };
    let mut query = vec![("format", format)];
    for (name, value) in [("start", &start), ("end", &args.end), ("service", &args.service)] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let stream = Client::new(&args.url, &args.credentials)?.stream("/spandrel/v1/export", &query)?;
    let mut stream = BufReader::with_capacity(1024 * 1024, stream);
    let end = match args.format {
        Format::Jsonl => lines(&mut stream, sink)?,
        Format::Protobuf => messages(&mut stream, sink)?,
    };
    end.context("the server ended the export early: the output is not complete; its log says why")
}

/// Copies lines up to the last one, which is for us.
fn lines(stream: &mut impl BufRead, sink: &mut Sink) -> anyhow::Result<Option<End>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = stream.read_until(b'\n', &mut line).context("the export broke off")?;
        if let Some(end) = line.strip_prefix(END_OF_LINES) {
            let end = end.trim_ascii_end().strip_suffix(b"}").unwrap_or_default();
            return Ok(Some(
                serde_json::from_slice(end).context("the end of the export is not of the shape expected")?,
            ));
        }
        if n == 0 || !line.ends_with(b"\n") {
            return Ok(None);
        }
        sink.put(&line)?;
    }
}

/// Copies fields up to the last one, which is for us.
fn messages(stream: &mut impl Read, sink: &mut Sink) -> anyhow::Result<Option<End>> {
    while let Some(field) = next_field(stream).context("the export broke off")? {
        if field.number == END_FIELD {
            let end = serde_json::from_slice(field.payload());
            return Ok(Some(end.context("the end of the export is not of the shape expected")?));
        }
        ensure!(field.number == 1, "field {} in the export; is the server newer than this program?", field.number);
        sink.put(&field.bytes)?;
    }
    Ok(None)
}

/// What a start of the server does, without its threads: nothing is sealed, nothing leaves by retention.
fn offline(dir: &Path, args: &ExportArgs, sink: &mut Sink) -> anyhow::Result<End> {
    let question = args.question()?;
    // Refuses what is no data directory, where opening would make one.
    drop(IdleDir::lock(dir)?);
    let raw = RawConfig { data_dir: Some(dir.to_path_buf()), ..RawConfig::default() };
    let mut config = raw.resolve()?;
    config.store.retention = None;
    let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
    let store = Arc::new(Store::open(config.store, clock.clone(), Arc::clone(&counters))?);
    Ingest::new(config.ingest, Arc::new(RealDisk), clock.clone(), Arc::clone(&counters)).replay(&store)?;
    let query = Query::new(clock, Arc::clone(&counters));
    query.attach(store);
    let format = match args.format {
        Format::Jsonl => ExportFormat::JsonLines,
        Format::Protobuf => ExportFormat::Protobuf,
    };
    let mut written = Ok(());
    let exported = query.export(&question, &mut |piece| {
        written = sink.put(&format.encode(piece));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    let mut reasons = exported.coverage.reasons;
    if 0 < counters.journal_damaged.value() {
        reasons.push(format!("{} damaged places in journals", counters.journal_damaged.value()));
    }
    Ok(End { spans: exported.spans, coverage: Coverage { reasons } })
}
