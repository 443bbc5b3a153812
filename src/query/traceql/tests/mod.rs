//! What filters mean: as texts, on a fixed batch, and in columns as in rows.

mod agreement;
mod bounds;
mod grammar;
mod heads;
mod measures;
mod random;
mod sealed;
mod semantics;
mod spansets;
