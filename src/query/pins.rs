//! Traces that people keep.

use crate::model::{TraceId, UnixNanos};
use crate::store::{Pin, PinError};

use super::{Query, QueryError};

impl Query {
    /// The pins, the newest first.
    ///
    /// # Errors
    /// `Starting`.
    pub fn pins(&self) -> Result<Vec<Pin>, QueryError> {
        Ok(self.store()?.pins())
    }

    /// Pins a trace of which something is stored, in place of a pin that it has: from here on its spans do not leave, whatever
    /// leaves around them. Spans of it that come later stay as well. Durable once it returns.
    ///
    /// # Errors
    /// `Starting`, `UnknownTrace`, `TooManyPins`, `LongNote`, `Store`; then it is pinned as little or as much as before.
    pub fn pin(&self, trace: TraceId, note: String, expires: Option<UnixNanos>) -> Result<Pin, QueryError> {
        let store = self.store()?;
        // First the pin, then the look: in the other order its spans could leave in between.
        let before = store.pin(trace, note, expires)?;
        if self.trace(trace)?.batch.spans.is_empty() {
            match before {
                Some(before) => store.put_back(before)?,
                None => drop(store.unpin(trace)?),
            }
            return Err(QueryError::UnknownTrace { trace });
        }
        let pinned = store.pins().into_iter().find(|pin| pin.trace == trace);
        pinned.ok_or(QueryError::NotPinned { trace })
    }

    /// Lets the spans of a trace leave again with what is around them.
    ///
    /// # Errors
    /// `Starting`, `NotPinned`, `Store`.
    pub fn unpin(&self, trace: TraceId) -> Result<(), QueryError> {
        self.store()?.unpin(trace)?.map(drop).ok_or(QueryError::NotPinned { trace })
    }
}

impl From<PinError> for QueryError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Full => Self::TooManyPins,
            PinError::LongNote { bytes } => Self::LongNote { bytes },
            PinError::Store(error) => Self::Store(error),
        }
    }
}
