//! Writing: records gather in a buffer, `commit` writes and syncs them together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;

use super::record::{FILE_HEADER_BYTES, RecordHeader, RecordLabel, file_header};
use super::{Disk, JournalError, SegmentFile};

/// When a commit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After the sync: an acknowledged request survives a power cut.
    #[default]
    Fsync,
    /// After the write: it survives `kill -9`, not a power cut.
    Relaxed,
}

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Directory of the segments.
    pub dir: PathBuf,
    /// Preallocated length of a segment; a longer record gets one of its own.
    pub segment_bytes: u64,
    /// When a commit returns.
    pub durability: Durability,
}

/// The open end of a journal. One owner, one thread.
#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    disk: Arc<dyn Disk>,
    segment: Option<Segment>,
    segment_no: u64,
    next_sequence: u64,
    /// Encoded records not yet written.
    buffer: Vec<u8>,
    buffered_records: u64,
    broken: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Box<dyn SegmentFile>,
    /// Where the next record goes; everything before is written.
    end: u64,
    allocated: u64,
}

/// What a commit cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Committed {
    /// Records that are durable now.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nanoseconds in fdatasync.
    pub sync_nanos: u64,
}

impl Journal {
    /// A journal that continues after segment `last_segment_no` with sequence `next_sequence`. Never appends to an
    /// existing segment; the first one is created by the first commit.
    pub fn new(config: JournalConfig, disk: Arc<dyn Disk>, last_segment_no: u64, next_sequence: u64) -> Self {
        Self {
            config,
            disk,
            segment: None,
            segment_no: last_segment_no,
            next_sequence,
            buffer: Vec::new(),
            buffered_records: 0,
            broken: false,
        }
    }

    /// Sequence of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Adds a record to the next commit and returns its sequence. Touches no file.
    ///
    /// # Errors
    /// `TooLong` for a payload above 256 MiB, `Closed` after a failed sync.
    pub fn append(&mut self, label: RecordLabel, payload: &[u8]) -> Result<u64, JournalError> {
        if self.broken {
            return Err(JournalError::Closed);
        }
        let header = RecordHeader::new(self.next_sequence, label, payload)?;
        header.write(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        self.buffered_records += 1;
        self.next_sequence += 1;
        Ok(header.sequence)
    }

    /// Writes and syncs everything appended since the last commit. On an error none of it counts as written.
    ///
    /// # Errors
    /// `Full` when there is no space: the sequence numbers are free again and a later commit may succeed. `Broken` when
    /// a sync failed: the journal stays closed.
    pub fn commit(&mut self) -> Result<Committed, JournalError> {
        if self.broken {
            return Err(JournalError::Closed);
        }
        if self.buffer.is_empty() {
            return Ok(Committed::default());
        }
        let outcome = self.write_buffer();
        if outcome.is_err() {
            self.next_sequence -= self.buffered_records;
        }
        self.broken |= matches!(outcome, Err(JournalError::Broken { .. }));
        self.buffer.clear();
        self.buffered_records = 0;
        outcome
    }

    /// Cuts the preallocated rest off the last segment: the mark of a clean stop.
    ///
    /// # Errors
    /// `Broken` when the disk refuses; every record stays where it is.
    pub fn close(mut self) -> Result<(), JournalError> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        if self.broken {
            return Err(JournalError::Closed);
        }
        segment.file.truncate(segment.end).map_err(|source| JournalError::Broken { path: segment.path, source })
    }

    fn write_buffer(&mut self) -> Result<Committed, JournalError> {
        let needed = self.buffer.len() as u64;
        if self.segment.as_ref().is_none_or(|segment| segment.allocated < segment.end + needed) {
            self.next_segment(needed)?;
        }
        let Some(segment) = &mut self.segment else { return Err(JournalError::Closed) };
        if let Err(source) = segment.file.write_at(&self.buffer, segment.end) {
            return Err(segment.after_failed_write(source));
        }
        let before = clock::instant();
        if self.config.durability == Durability::Fsync
            && let Err(source) = segment.file.sync()
        {
            return Err(JournalError::Broken { path: segment.path.clone(), source });
        }
        segment.end += needed;
        let sync_nanos = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Committed { records: self.buffered_records, bytes: needed, sync_nanos })
    }

    fn next_segment(&mut self, needed: u64) -> Result<(), JournalError> {
        if let Some(mut full) = self.segment.take() {
            // The unused rest is given back; a failure only leaves zeros, which replay passes over.
            let _zeros_remain = full.file.truncate(full.end);
        }
        self.segment_no += 1;
        let path = segment_path(&self.config.dir, self.segment_no);
        let header_bytes = FILE_HEADER_BYTES as u64;
        let allocated = self.config.segment_bytes.max(header_bytes + needed);
        let full = |source| JournalError::Full { path: path.clone(), source };
        let mut file = self.disk.create(&path, allocated).map_err(full)?;
        file.write_at(&file_header(), 0).map_err(full)?;
        file.sync()
            .and_then(|()| self.disk.sync_dir(&self.config.dir))
            .map_err(|source| JournalError::Broken { path: path.clone(), source })?;
        self.segment = Some(Segment { path, file, end: header_bytes, allocated });
        Ok(())
    }
}

impl Segment {
    /// A failed write leaves a torn record: it is cut off. Where even that fails, nothing is known any more.
    fn after_failed_write(&mut self, source: std::io::Error) -> JournalError {
        let path = self.path.clone();
        self.allocated = self.end;
        match self.file.truncate(self.end) {
            Ok(()) => JournalError::Full { path, source },
            Err(_) => JournalError::Broken { path, source },
        }
    }
}

/// `<dir>/00000001.log`
pub(super) fn segment_path(dir: &Path, no: u64) -> PathBuf {
    dir.join(format!("{no:08}.log"))
}
