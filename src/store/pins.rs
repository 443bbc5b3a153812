//! `pins`: the traces that people want to keep, whatever leaves around them. Text with a checksum, as `SEALED` is.
//!
//! ```text
//! spandrel-pins 1
//! pin 9f0c...32 hex 1795466600000000000 1830026600000000000 why%20p99%20rose
//!     (trace, pinned at, expires at or 0, note percent-encoded)
//! checksum 0123456789abcdef
//! ```
//! A pin copies nothing: its trace stays where it lies for as long as the partitions there are live, and goes on into what is
//! left of them. The file is small, and written as a whole each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::limits::{PIN_NOTE_BYTES_MAX, PINS_MAX};
use crate::model::{TraceId, UnixNanos};

use super::manifest::{escape, unescape, with_checksum, without_checksum};
use super::{StoreError, files};

/// Name of the file in the data directory.
pub(super) const FILE_NAME: &str = "pins";
const FIRST_LINE: &str = "spandrel-pins 1";

/// A trace that somebody keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Which.
    pub trace: TraceId,
    /// Why, in the words of who did it; at most `limits::PIN_NOTE_BYTES_MAX`.
    pub note: String,
    /// When.
    pub pinned_at: UnixNanos,
    /// Until when; for ever when `None`.
    pub expires: Option<UnixNanos>,
}

impl Pin {
    fn holds(&self, now: UnixNanos) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Why a trace was not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There are as many as may be.
    #[error("{PINS_MAX} traces are pinned, which is all there may be; remove some first")]
    Full,
    /// The note is too long.
    #[error("the note has {bytes} bytes, at most {PIN_NOTE_BYTES_MAX} are kept")]
    LongNote {
        /// Its length.
        bytes: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All pins, in memory and on disk.
#[derive(Debug, Default)]
pub(super) struct Pins {
    path: PathBuf,
    pins: BTreeMap<TraceId, Pin>,
}

impl Pins {
    /// Reads the file of a data directory; `None` when it is damaged.
    pub(super) fn open(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join(FILE_NAME);
        let pins = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(BTreeMap::new()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => None,
            Err(source) => return Err(StoreError::File { action: "read", path, source }),
        };
        Ok(pins.map(|pins| Self { path, pins }))
    }

    /// Without any; the next one that is put makes the file.
    pub(super) fn none(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE_NAME), pins: BTreeMap::new() }
    }

    /// Those that have not expired, the newest first.
    pub(super) fn list(&self, now: UnixNanos) -> Vec<Pin> {
        let mut pins: Vec<Pin> = self.pins.values().filter(|pin| pin.holds(now)).cloned().collect();
        pins.sort_by_key(|pin| (std::cmp::Reverse(pin.pinned_at), pin.trace));
        pins
    }

    /// Their traces.
    pub(super) fn traces(&self, now: UnixNanos) -> BTreeSet<TraceId> {
        self.pins.values().filter(|pin| pin.holds(now)).map(|pin| pin.trace).collect()
    }

    /// Durable once it returns; a pin of the same trace is replaced, and returned.
    pub(super) fn put(&mut self, pin: Pin, now: UnixNanos) -> Result<Option<Pin>, PinError> {
        if PIN_NOTE_BYTES_MAX < pin.note.len() {
            return Err(PinError::LongNote { bytes: pin.note.len() });
        }
        let mut pins = self.pins.clone();
        pins.retain(|_, known| known.holds(now));
        let before = pins.insert(pin.trace, pin);
        if PINS_MAX < pins.len() {
            return Err(PinError::Full);
        }
        self.write(pins)?;
        Ok(before)
    }

    /// Durable once it returns; `None` when there was none.
    pub(super) fn remove(&mut self, trace: TraceId) -> Result<Option<Pin>, StoreError> {
        let mut pins = self.pins.clone();
        let removed = pins.remove(&trace);
        if removed.is_some() {
            self.write(pins)?;
        }
        Ok(removed)
    }

    /// Forgets those that have expired.
    pub(super) fn expire(&mut self, now: UnixNanos) -> Result<(), StoreError> {
        if self.pins.values().all(|pin| pin.holds(now)) {
            return Ok(());
        }
        let mut pins = self.pins.clone();
        pins.retain(|_, pin| pin.holds(now));
        self.write(pins)
    }

    /// What is in memory is what is on disk: when that cannot be written, nothing changes.
    fn write(&mut self, pins: BTreeMap<TraceId, Pin>) -> Result<(), StoreError> {
        let mut text = format!("{FIRST_LINE}\n");
        for Pin { trace, note, pinned_at, expires } in pins.values() {
            let (at, expires, note) = (pinned_at.0, expires.map_or(0, |expires| expires.0), escape(note));
            let _infallible = writeln!(text, "pin {trace} {at} {expires} {note}");
        }
        files::write_durably(&self.path, with_checksum(text).as_bytes())?;
        self.pins = pins;
        Ok(())
    }
}

/// `None` when the text is not whole.
fn parse(text: &str) -> Option<BTreeMap<TraceId, Pin>> {
    let mut lines = without_checksum(text)?.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let pin = |line: &str| {
        let mut fields = line.strip_prefix("pin ")?.splitn(4, ' ');
        let trace = TraceId::parse_lenient(fields.next()?).ok()?;
        let pinned_at = UnixNanos(fields.next()?.parse().ok()?);
        let expires = Some(UnixNanos(fields.next()?.parse().ok()?)).filter(|expires| expires.0 != 0);
        Some((trace, Pin { trace, note: unescape(fields.next()?)?, pinned_at, expires }))
    };
    lines.map(pin).collect()
}

/// How many pins the file of a data directory holds; `Err` says what is wrong with it.
pub(super) fn check(data_dir: &Path) -> Result<usize, String> {
    match Pins::open(data_dir) {
        Ok(Some(pins)) => Ok(pins.pins.len()),
        Ok(None) => Err("pins is not whole: which traces are pinned is not known".to_owned()),
        Err(error) => Err(crate::telemetry::with_causes(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(trace: u8, expires: Option<u64>) -> Pin {
        let note = format!("why {trace}\n% \u{e9}");
        Pin { trace: TraceId([trace; 16]), note, pinned_at: UnixNanos(1_000), expires: expires.map(UnixNanos) }
    }

    #[test]
    fn pins_are_there_after_a_restart_until_they_expire_or_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let now = UnixNanos(2_000);
        let mut pins = Pins::open(dir.path()).unwrap().unwrap();
        for pin in [pin(1, None), pin(2, Some(3_000)), pin(3, Some(1_500))] {
            assert_eq!(pins.put(pin, now).unwrap(), None);
        }
        let again = || Pins::open(dir.path()).unwrap().unwrap();
        assert_eq!(again().list(now), [pin(1, None), pin(2, Some(3_000))]);
        assert_eq!(again().traces(UnixNanos(3_000)).len(), 1, "its last instant is the one before");
        assert_eq!(again().remove(TraceId([1; 16])).unwrap(), Some(pin(1, None)));
        assert_eq!(again().list(now), [pin(2, Some(3_000))]);
        again().expire(UnixNanos(3_000)).unwrap();
        assert_eq!(again().pins.len(), 0);
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let _none = Pins::none(dir.path()).put(pin(1, None), UnixNanos(0)).unwrap();
        let text = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            assert!(Pins::open(dir.path()).unwrap().is_none(), "flip at {at}");
        }
    }

    #[test]
    fn a_pin_that_is_one_too_many_or_says_too_much_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::none(dir.path());
        let long = Pin { note: "x".repeat(PIN_NOTE_BYTES_MAX + 1), ..pin(1, None) };
        assert!(matches!(pins.put(long, UnixNanos(0)), Err(PinError::LongNote { .. })));
        let of = |no: usize| Pin { trace: TraceId((no as u128).to_be_bytes()), ..pin(1, None) };
        pins.pins = (1..=PINS_MAX).map(|no| (of(no).trace, of(no))).collect();
        assert!(matches!(pins.put(of(PINS_MAX + 1), UnixNanos(0)), Err(PinError::Full)));
        assert!(pins.put(of(7), UnixNanos(0)).unwrap().is_some(), "one that is there may be changed");
    }
}
