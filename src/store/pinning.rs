//! Pins by hand, from the store's side: what is asked of them, and what a damaged file of theirs means.

use std::path::Path;

use crate::model::{TraceId, UnixNanos};

use super::pins::{self, Pins};
use super::{IdleDir, Pin, PinError, Store, StoreError, files};

impl Store {
    /// The traces that are pinned by hand, the newest pin first.
    pub fn pins(&self) -> Vec<Pin> {
        self.pins.lock().list(self.clock.now())
    }

    /// Pins a trace, durably; whether there is such a trace is for the caller to find out *afterwards*: from here on its spans
    /// do not leave. Returns the pin that was there before.
    ///
    /// # Errors
    /// `Full`, `LongNote`, or `Store` when the file cannot be written; nothing has changed then.
    pub fn pin(&self, trace: TraceId, note: String, expires: Option<UnixNanos>) -> Result<Option<Pin>, PinError> {
        let now = self.clock.now();
        self.pins.lock().put(Pin { trace, note, pinned_at: now, expires }, now)
    }

    /// Puts a pin back as it was.
    ///
    /// # Errors
    /// As `pin`.
    pub fn put_back(&self, pin: Pin) -> Result<(), PinError> {
        self.pins.lock().put(pin, self.clock.now()).map(drop)
    }

    /// Removes a pin; the spans leave with what is around them. `None` when there was none.
    ///
    /// # Errors
    /// `File`.
    pub fn unpin(&self, trace: TraceId) -> Result<Option<Pin>, StoreError> {
        let mut pins = self.pins.lock();
        pins.expire(self.clock.now())?;
        pins.remove(trace)
    }
}

impl IdleDir {
    /// How many traces are pinned; `Err` says what is wrong with the file.
    ///
    /// # Errors
    /// One sentence.
    pub fn check_pins(&self) -> Result<usize, String> {
        pins::check(self.path())
    }
}

/// A file of pins that is not whole goes to quarantine, where every answer names it: it cannot be made anew.
pub(super) fn open(data_dir: &Path, quarantined: &mut Vec<String>) -> Result<Pins, StoreError> {
    if let Some(pins) = Pins::open(data_dir)? {
        return Ok(pins);
    }
    tracing::error!("the file of pinned traces is damaged; moved to quarantine, restore it from a backup");
    quarantined.push(files::quarantine(data_dir, &data_dir.join(pins::FILE_NAME), pins::FILE_NAME)?);
    Ok(Pins::none(data_dir))
}
