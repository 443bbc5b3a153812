//! Spandrel: a tracing span collector with exemplar linking.
//!
//! Spans come in over OTLP; the number that hurts (p99) leads, in one call, to the trace that explains it.
//! `ARCHITECTURE.md` has the map; the layers below only import downwards and `tests/tidy.rs` holds them to it.

pub mod api;
pub mod block;
pub mod cli;
pub mod clock;
pub mod config;
pub mod feed;
pub mod ingest;
pub mod journal;
pub mod latency;
pub mod limits;
pub mod model;
pub mod otlp;
pub mod query;
pub mod store;
pub mod telemetry;
