//! Spandrel: a tracing span collector with exemplar linking.
//!
//! Spans come in over OTLP; the number that hurts (p99) leads, in one call, to the trace that explains it.
//! `ARCHITECTURE.md` has the map; the layers below only import downwards and `tests/tidy.rs` holds them to it.

pub mod block;
pub mod clock;
pub mod limits;
pub mod model;
