//! The doors. Each turns a protocol's request into a call of `ingest` or `query` and the outcome into that protocol's
//! answer; none of them knows how anything is stored.

pub mod access;
mod body;
mod cors;
mod gate;
mod grpc;
mod health;
mod hourly;
pub mod inflate;
mod jaeger;
pub mod listen;
mod native;
mod open_params;
mod otlp;
mod params;
mod prometheus;
mod refusal;
mod shown;
mod span_metrics;
mod tempo;
#[cfg(test)]
mod tests;
mod trace_search;
mod ui;
mod watched;
mod zipkin;
mod zipkin_query;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::clock;
use crate::ingest::Ingest;
use crate::query::promql::totals::Totals;
use crate::query::{Query, QueryError};
use crate::telemetry::Counters;

use access::Access;
use hourly::Hourly;
pub use params::parse_time;
use refusal::Refusal;

/// Questions answered at once; the next ones wait.
const QUERIES_AT_ONCE: usize = 20;
/// Exports at once; each keeps a thread as long as its client reads.
const EXPORTS_AT_ONCE: usize = 2;

/// What every door needs.
#[derive(Clone, Debug)]
pub struct Doors {
    ingest: Arc<Ingest>,
    query: Arc<Query>,
    counters: Arc<Counters>,
    query_slots: Arc<Semaphore>,
    export_slots: Arc<Semaphore>,
    access: Arc<Access>,
    hourly: Arc<Hourly>,
    /// What `/metrics/spans` has counted.
    totals: Arc<Mutex<Totals>>,
    body_bytes_max: usize,
    body_stalls_within: Duration,
}

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes as received, and again after inflation.
    pub bytes_max: usize,
    /// A body that pauses for so long, or is slower than 1 KiB/s after it, is given up.
    pub stalls_within: Duration,
}

impl Doors {
    /// The doors of one server.
    pub fn new(
        ingest: Arc<Ingest>,
        query: Arc<Query>,
        counters: Arc<Counters>,
        access: Access,
        bodies: BodyLimits,
    ) -> Self {
        let totals = Totals::since(prometheus::millis(query.now()));
        Self {
            ingest,
            query,
            counters,
            query_slots: Arc::new(Semaphore::new(QUERIES_AT_ONCE)),
            export_slots: Arc::new(Semaphore::new(EXPORTS_AT_ONCE)),
            access: Arc::new(access),
            hourly: Arc::default(),
            totals: Arc::new(Mutex::new(totals)),
            body_bytes_max: bodies.bytes_max,
            body_stalls_within: bodies.stalls_within,
        }
    }

    /// Zipkin v2 over HTTP (port 9411).
    pub fn zipkin(&self) -> Router {
        gate::of_ingest(zipkin::router(), self, zipkin::refuse)
    }

    /// Everything that is asked (port 3200).
    pub fn query(&self) -> Router {
        let router = native::router()
            .merge(tempo::router())
            .merge(prometheus::router())
            .merge(span_metrics::router())
            .merge(jaeger::router())
            .merge(zipkin_query::router())
            .merge(health::router())
            .merge(ui::router());
        gate::of_query(router.fallback(unknown_path), self, refuse)
    }

    /// Runs a question on a thread of its own, so that it holds up neither ingest nor other answers. When the client goes
    /// away, this future is dropped with its request, and the question ends.
    async fn ask<T: Send + 'static>(
        &self,
        door: &'static str,
        question: impl FnOnce(&Query) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let began = clock::instant();
        // Never closed, so there is always a permit in the end.
        let slot = Arc::clone(&self.query_slots).acquire_owned().await.ok();
        let (query, _ends_the_question) = self.query.for_asker();
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("spandrel-query".to_owned()).spawn(move || {
            let answer = question(&query);
            // An abandoned question keeps its slot as long as it runs. Who has an answer may stop the server: then nothing of it
            // holds the store any more.
            drop((slot, query));
            tell.send(answer)
        });
        let answer = told.await.unwrap_or_else(|_nothing_told| {
            tracing::error!(no_thread = ?thread.err(), "a question ended by a panic, or could not begin");
            Err(QueryError::Failed)
        });
        self.counters.queries.add(door, 1);
        self.counters.query_nanos.add(door, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if answer.is_err() {
            self.counters.query_errors.add(door, 1);
        }
        answer
    }
}

/// A refusal of the query port: `{"error": "..."}`, as its own errors are, or a status of gRPC.
fn refuse(headers: &HeaderMap, refusal: &Refusal) -> Response {
    if grpc::is_grpc(headers) {
        return grpc::failure(refusal);
    }
    refusal.answer(axum::Json(serde_json::json!({ "error": refusal.message })).into_response())
}

/// Never HTML: Grafana shows the body as it is.
async fn unknown_path(uri: axum::http::Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if grpc::is_grpc(&headers) {
        let message = format!("{} is not served here; only tempopb.StreamingQuerier is", grpc::printable(path));
        return grpc::failure(&Refusal::with_status(Code::Unimplemented, StatusCode::NOT_FOUND, &message));
    }
    text(
        StatusCode::NOT_FOUND,
        format!("no such path: {path}; see /spandrel/v1/status, /api/traces/{{id}}, /api/search, /metrics\n"),
    )
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body.into()).into_response()
}
