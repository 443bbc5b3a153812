//! The OTLP door: gRPC and HTTP, protobuf and JSON, all of them on both ports, told apart by `Content-Type`. An exporter
//! that was given the wrong one of the two ports works all the same (OTLP-04, OTLP-05).

mod grpc;
mod http;

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use tonic::Code;

use crate::ingest::{Encoding, ExportError, Exported, Permit};

use super::grpc::{is_grpc, printable};
use super::listen::Peer;
use super::refusal::Refusal;
use super::{Doors, gate};

pub(super) use http::media_type;

/// The path of OTLP over HTTP.
const TRACES: &str = "/v1/traces";
/// Parts of a path that name another signal, HTTP and gRPC.
const OTHER_SIGNALS: [&str; 3] = ["metrics", "logs", "profiles"];

impl Doors {
    /// OTLP over gRPC and HTTP (ports 4317 and 4318).
    pub fn otlp(&self) -> Router {
        gate::of_ingest(grpc::router().merge(http::router()).fallback(elsewhere), self, refuse)
    }

    /// Stores one request, and keeps count of who sends.
    async fn export(
        &self,
        (body, permit): (Vec<u8>, Permit),
        encoding: Encoding,
        sender: &Sender,
    ) -> Result<Exported, ExportError> {
        let outcome = self.ingest.export(body, encoding, permit).await;
        self.counters.requests_by_agent.add(&sender.agent);
        if let Ok(Exported { message: Some(message), .. }) = &outcome
            && self.hourly.is_due(sender.address, "remark")
        {
            tracing::info!(client = %sender.address, agent = ?sender.agent, message, "an exporter was told");
        }
        outcome
    }
}

/// Who sends.
struct Sender {
    address: IpAddr,
    /// `User-Agent`, cut: it becomes a label.
    agent: String,
}

impl Sender {
    fn of(request: &Request) -> Self {
        const AGENT_BYTES_MAX: usize = 64;
        let address = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0.ip());
        let agent = request.headers().get(header::USER_AGENT).map_or("none".into(), |value| {
            let bytes = value.as_bytes();
            String::from_utf8_lossy(bytes.get(..AGENT_BYTES_MAX).unwrap_or(bytes))
        });
        Self { address, agent: agent.into_owned() }
    }
}

/// A path that is not served: the answer names the one that is.
async fn elsewhere(State(doors): State<Doors>, request: Request) -> Response {
    let path = request.uri().path();
    let signal = OTHER_SIGNALS.iter().find(|signal| path.contains(*signal));
    if let Some(signal) = signal {
        let sender = Sender::of(&request);
        if doors.hourly.is_due(sender.address, signal) {
            let agent = &sender.agent;
            tracing::info!(client = %sender.address, ?agent, signal, "an exporter sends a signal that is not kept here");
        }
    }
    let headers = request.headers();
    let refusal = match (is_grpc(headers), signal) {
        (true, _) => {
            let message = format!("{} is not served here; only {} is", printable(path), grpc::EXPORT);
            Refusal::with_status(Code::Unimplemented, StatusCode::NOT_FOUND, &message)
        }
        (false, Some(signal)) => {
            let message = format!("{signal} are not kept here; traces are sent to POST {TRACES}");
            Refusal::with_status(Code::NotFound, StatusCode::NOT_FOUND, &message)
        }
        (false, None) => {
            let message = format!("traces are sent to POST {TRACES}");
            Refusal::with_status(Code::NotFound, StatusCode::NOT_FOUND, &message)
        }
    };
    refuse(headers, &refusal)
}

/// A refusal in the form in which the request came.
fn refuse(headers: &HeaderMap, refusal: &Refusal) -> Response {
    if is_grpc(headers) {
        return super::grpc::failure(refusal);
    }
    http::failure(refusal, http::media_type(headers).unwrap_or(Encoding::Json))
}

/// Left unset when there is nothing to say (OTLP-20).
fn partial_success(exported: Exported) -> Option<ExportTracePartialSuccess> {
    if exported.rejected_spans == 0 && exported.message.is_none() {
        return None;
    }
    Some(ExportTracePartialSuccess {
        rejected_spans: i64::try_from(exported.rejected_spans).unwrap_or(i64::MAX),
        error_message: exported.message.unwrap_or_default(),
    })
}
