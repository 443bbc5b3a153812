//! `/spandrel/v1/export`: stored spans as a stream of OTLP, as fast as the client reads and no faster.
//!
//! ```text
//! format=jsonl      one TracesData per line, about 2,000 spans each
//! format=protobuf   TracesData messages one behind the other, which together are one TracesData
//! ```
//!
//! The end says what was exported and what could not be read, in a field that readers of OTLP pass over: a line
//! `{"resourceSpans":[],"spandrelExport":{..}}`, or the field 1000 with the same JSON. Without it the export was cut.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc::{Sender, channel};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::query::{ExportFormat, ExportQuestion, Query, QueryError};

use super::answers::CoverageJson;
use super::{DOOR, Doors, Failure};
use crate::api::params::{BadParameter, Params};

/// Pieces that wait for the client; each has some MiB.
const PIECES_WAITING: usize = 2;

/// What stands at the end.
#[derive(Serialize)]
struct ExportJson {
    spans: u64,
    coverage: CoverageJson,
}

pub(super) async fn export(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = Params::strict(&uri, &["start", "end", "service", "format"])?;
    let now = doors.query.now();
    let question = ExportQuestion {
        start: params.time("start", now, "0")?,
        end: params.get("end").map(|_| params.time("end", now, "now")).transpose()?,
        service: params.get("service").map(str::to_owned),
    };
    let format = match params.get("format").unwrap_or("jsonl") {
        "jsonl" => ExportFormat::JsonLines,
        "protobuf" => ExportFormat::Protobuf,
        other => return Err(BadParameter(format!("format={other} is not known; use jsonl or protobuf")).into()),
    };
    let Ok(slot) = Arc::clone(&doors.export_slots).try_acquire_owned() else {
        let busy = "as many exports as may run at once are running; try again when one has ended".to_owned();
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, busy));
    };
    // Refused here, while there still is a status to say it with.
    let _size = doors.ask(DOOR, Query::status).await?;
    let (pieces, stream) = channel(PIECES_WAITING);
    let query = Arc::clone(&doors.query);
    let _ends_with_the_stream = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let last = match run(&query, &question, format, &pieces) {
            Ok(Some(end)) => Ok(end),
            Ok(None) => return,
            Err(error) => Err(std::io::Error::other(error)),
        };
        let _client_gone = pieces.blocking_send(last);
    });
    let content_type = match format {
        ExportFormat::JsonLines => "application/jsonl",
        ExportFormat::Protobuf => "application/x-protobuf",
    };
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(ReceiverStream::new(stream))).into_response())
}

/// What stands at the end; `None` when the client went away.
fn run(
    query: &Query,
    question: &ExportQuestion,
    format: ExportFormat,
    pieces: &Sender<std::io::Result<Bytes>>,
) -> Result<Option<Bytes>, QueryError> {
    let exported =
        query.export(question, &mut |piece| match pieces.blocking_send(Ok(Bytes::from(format.encode(piece)))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_client_gone) => ControlFlow::Break(()),
        })?;
    let end = ExportJson { spans: exported.spans, coverage: exported.coverage.into() };
    let end = serde_json::to_string(&end).map_err(|_| QueryError::Failed)?;
    Ok((!pieces.is_closed()).then(|| encode_end(&end, format)))
}

#[derive(prost::Message)]
struct End {
    #[prost(string, tag = "1000")]
    spandrel_export: String,
}

fn encode_end(end: &str, format: ExportFormat) -> Bytes {
    match format {
        ExportFormat::JsonLines => Bytes::from(format!("{{\"resourceSpans\":[],\"spandrelExport\":{end}}}\n")),
        ExportFormat::Protobuf => Bytes::from(prost::Message::encode_to_vec(&End { spandrel_export: end.to_owned() })),
    }
}
