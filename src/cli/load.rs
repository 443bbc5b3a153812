//! `spandrel load`: files of OTLP spans into a running server, through its public port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{HumanCount, ProgressBar};

use super::client::{Client, Credentials};
use super::data_dir::bytes_bar;
use super::otlp_file::next_field;
use super::print;

/// A server that is starting or overloaded is asked again this often.
const ATTEMPTS_MAX: u32 = 20;

/// A protobuf file is sent in requests of about this size.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Flags of `load`.
#[derive(clap::Args, Debug)]
pub(super) struct LoadArgs {
    /// Files of OTLP spans: one JSON document, one JSON document per line, or protobuf (told apart by content)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// OTLP/HTTP port of the server
    #[arg(long, env = "SPANDREL_OTLP_URL", default_value = "http://127.0.0.1:4318", value_name = "URL")]
    url: String,
    #[command(flatten)]
    credentials: Credentials,
}

/// Spans that a server did not take.
#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    rejected_spans: u64,
    remarks: Vec<String>,
}

pub(super) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let bytes = args.files.iter().map(|file| Ok(std::fs::metadata(file)?.len())).sum::<std::io::Result<u64>>();
    let bar = bytes_bar(bytes.context("cannot read the files")?)?;
    let mut totals = Totals::default();
    for file in &args.files {
        bar.set_message(file.display().to_string());
        load(&client, file, &bar, &mut totals).with_context(|| format!("{}", file.display()))?;
    }
    bar.finish_and_clear();
    let requests = HumanCount(totals.requests);
    print(&format!("{requests} requests stored, {} spans rejected\n", HumanCount(totals.rejected_spans)))?;
    totals.remarks.dedup();
    totals.remarks.iter().take(10).try_for_each(|remark| print(&format!("  {remark}\n")))
}

fn load(client: &Client, file: &Path, bar: &ProgressBar, totals: &mut Totals) -> anyhow::Result<()> {
    let content = std::fs::read(file)?;
    if !looks_like_json(&content) {
        for request in requests(&content) {
            send(client, "application/x-protobuf", request, totals)?;
            bar.inc(request.len() as u64);
        }
        return Ok(());
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&content).is_ok() {
        send(client, "application/json", &content, totals)?;
        bar.inc(content.len() as u64);
        return Ok(());
    }
    for (number, line) in (1..).zip(content.split_inclusive(|byte| *byte == b'\n')) {
        if !line.trim_ascii().is_empty() {
            send(client, "application/json", line, totals).with_context(|| format!("line {number}"))?;
        }
        bar.inc(line.len() as u64);
    }
    Ok(())
}

/// A message cut between its resources into requests of some MiB; as a whole when it is none: the server says why.
fn requests(content: &[u8]) -> Vec<&[u8]> {
    let (mut requests, mut from, mut rest) = (Vec::new(), content, content);
    loop {
        match next_field(&mut rest) {
            Ok(Some(_)) if from.len() - rest.len() < REQUEST_BYTES => {}
            Ok(more) => {
                let (request, behind) = from.split_at(from.len() - rest.len());
                if !request.is_empty() {
                    requests.push(request);
                }
                from = behind;
                if more.is_none() {
                    return requests;
                }
            }
            Err(_) => return vec![content],
        }
    }
}

/// An OTLP protobuf request begins with the tag 0x0a, a JSON one with a brace.
fn looks_like_json(content: &[u8]) -> bool {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    content.trim_ascii_start().first() == Some(&b'{')
}

fn send(client: &Client, content_type: &str, body: &[u8], totals: &mut Totals) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        // Answers of a JSON request are JSON; for protobuf only the status is of interest here.
        let reply = client.post("/v1/traces", content_type, body)?;
        match reply.status {
            200 => {
                totals.requests += 1;
                totals.note(&reply.body);
                return Ok(());
            }
            429 | 502..=504 => {
                let pause = Duration::from_secs(reply.retry_after_secs.unwrap_or(1).min(10));
                std::thread::park_timeout(pause);
            }
            status => bail!("refused with status {status}: {}", message(&reply.body)),
        }
    }
    bail!("the server stayed unavailable; is its disk full? see /ready")
}

fn message(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    super::render::escape(message.unwrap_or(body)).into_owned()
}

impl Totals {
    fn note(&mut self, body: &str) {
        let Ok(answer) = serde_json::from_str::<serde_json::Value>(body) else { return };
        let Some(partial) = answer.get("partialSuccess") else { return };
        let rejected = partial.get("rejectedSpans").and_then(|spans| spans.as_str()?.parse::<u64>().ok());
        self.rejected_spans += rejected.unwrap_or(0);
        let remark = partial.get("errorMessage").and_then(|message| message.as_str()).unwrap_or_default();
        self.remarks.push(super::render::escape(remark).into_owned());
    }
}
