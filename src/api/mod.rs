//! The doors. Each turns a protocol's request into a call of `ingest` or `query` and the outcome into that protocol's
//! answer; none of them knows how anything is stored.

mod body;
mod health;
mod native;
mod otlp_grpc;
mod otlp_http;
mod params;
mod refusal;
mod tempo;
#[cfg(test)]
mod tests;
mod ui;
mod zipkin;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::clock;
use crate::ingest::Ingest;
use crate::query::{Query, QueryError};
use crate::telemetry::Counters;

pub use params::parse_time;

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
    body_bytes_max: usize,
}

impl Doors {
    /// `body_bytes_max` bounds a request as received and again after inflation.
    pub fn new(ingest: Arc<Ingest>, query: Arc<Query>, counters: Arc<Counters>, body_bytes_max: usize) -> Self {
        Self {
            ingest,
            query,
            counters,
            query_slots: Arc::new(Semaphore::new(QUERIES_AT_ONCE)),
            export_slots: Arc::new(Semaphore::new(EXPORTS_AT_ONCE)),
            body_bytes_max,
        }
    }

    /// OTLP over gRPC (port 4317).
    pub fn otlp_grpc(&self) -> Router {
        otlp_grpc::router().with_state(self.clone())
    }

    /// OTLP over HTTP (port 4318).
    pub fn otlp_http(&self) -> Router {
        otlp_http::router().with_state(self.clone())
    }

    /// Zipkin v2 over HTTP (port 9411).
    pub fn zipkin(&self) -> Router {
        zipkin::router().with_state(self.clone())
    }

    /// Everything that is asked (port 3200).
    pub fn query(&self) -> Router {
        let router = native::router().merge(tempo::router()).merge(health::router()).merge(ui::router());
        router.fallback(unknown_path).with_state(self.clone())
    }

    /// Runs a question on a thread of its own, so that it holds up neither ingest nor other answers.
    async fn ask<T: Send + 'static>(
        &self,
        door: &'static str,
        question: impl FnOnce(&Query) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let began = clock::instant();
        // Never closed, so there is always a permit in the end.
        let _slot = Arc::clone(&self.query_slots).acquire_owned().await.ok();
        let query = Arc::clone(&self.query);
        let answer = tokio::task::spawn_blocking(move || question(&query)).await.unwrap_or_else(|panic| {
            tracing::error!(%panic, "a question ended by a panic");
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

/// Serves until `shutdown` resolves, then finishes what is in flight.
///
/// # Errors
/// What the listener says.
pub async fn run(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

/// Never HTML: Grafana shows the body as it is.
async fn unknown_path(uri: axum::http::Uri) -> Response {
    let path = uri.path();
    text(
        StatusCode::NOT_FOUND,
        format!("no such path: {path}; see /spandrel/v1/status, /api/traces/{{id}}, /metrics\n"),
    )
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body.into()).into_response()
}
