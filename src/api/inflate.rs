//! Inflating a body in steps, so that whoever asks for the next one can first see to its memory. Never more than the
//! limit comes out, whatever went in.

use std::io::{self, Cursor, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;

/// Bytes that one step adds at most.
pub const STEP_BYTES: usize = 64 * 1024;
/// A body whose length is not known beforehand may grow so far by doubling.
const DOUBLING_BYTES_MAX: usize = 1024 * 1024;
/// zstd window: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Members of a gzip body. Each costs some 20 us, also one of 20 bytes that holds nothing: 16 MiB of those took 19 s.
/// Block-wise writers make one for each 64 KiB.
const GZIP_MEMBERS_MAX: u32 = 4096;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Up to 4,096 gzip members behind each other (RFC 1952 2.2).
    Gzip,
    /// Any number of frames; a window of at most 8 MiB.
    Zstd,
    /// zlib (RFC 1950), which is what HTTP means by deflate.
    Deflate,
}

impl Compression {
    /// The content coding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// What the sender says it inflates to; 0 when it does not say. Not to be relied on.
    pub fn noted_length(self, bytes: &[u8]) -> usize {
        let noted = match self {
            Self::Deflate => None,
            // ISIZE of the last member (RFC 1952 2.3.1).
            Self::Gzip => bytes.last_chunk().map(|length| u64::from(u32::from_le_bytes(*length))),
            Self::Zstd => zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten(),
        };
        noted.and_then(|noted| usize::try_from(noted).ok()).unwrap_or(0)
    }

    fn reader(self, bytes: Bytes) -> io::Result<Box<dyn Read + Send>> {
        let bytes = Cursor::new(bytes);
        Ok(match self {
            Self::Gzip => Box::new(GzipMembers { open: Some(GzDecoder::new(bytes)), left: GZIP_MEMBERS_MAX }),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(bytes)),
            Self::Zstd => {
                let mut reader = zstd::stream::read::Decoder::new(bytes)?;
                reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(reader)
            }
        })
    }
}

/// Why a body did not inflate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// It is not what it is said to be.
    #[error(transparent)]
    Damaged(#[from] io::Error),
    /// More than the limit comes out.
    #[error("more than {limit} bytes come out")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
}

/// A body of which a part is inflated.
///
/// What comes out is allocated once, for the length that the compression notes. Where that is missing or wrong, the length
/// is counted first: a buffer that doubles would hold a body twice, and leave holes of every size behind.
pub struct Inflating {
    compression: Compression,
    bytes: Bytes,
    reader: Box<dyn Read + Send>,
    inflated: Vec<u8>,
    limit: usize,
}

impl std::fmt::Debug for Inflating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflating")
            .field("inflated", &self.inflated.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Inflating {
    /// Of no byte yet. `limit` is in bytes that may come out.
    ///
    /// # Errors
    /// `Damaged` when there is no memory for zstd.
    pub fn new(bytes: Vec<u8>, compression: Compression, limit: usize) -> Result<Self, InflateError> {
        let bytes = Bytes::from(bytes);
        let inflated = Vec::with_capacity(compression.noted_length(&bytes).min(limit));
        Ok(Self { compression, reader: compression.reader(bytes.clone())?, bytes, inflated, limit })
    }

    /// Inflates up to `STEP_BYTES` more; `false` at the end.
    ///
    /// # Errors
    /// `Damaged`, `TooLarge`.
    pub fn step(&mut self) -> Result<bool, InflateError> {
        let room = self.inflated.capacity() - self.inflated.len();
        if room == 0 {
            return self.step_past_the_end();
        }
        let step = u64::try_from(STEP_BYTES.min(room)).unwrap_or(u64::MAX);
        let read = self.reader.by_ref().take(step).read_to_end(&mut self.inflated)?;
        self.check_limit()?;
        Ok(0 < read)
    }

    /// There is no room: either this is the end, or room is made for all the rest.
    fn step_past_the_end(&mut self) -> Result<bool, InflateError> {
        let mut more = [0];
        if self.reader.read(&mut more)? == 0 {
            return Ok(false);
        }
        let length = self.inflated.len();
        let expected = if length < DOUBLING_BYTES_MAX { 2 * length.max(STEP_BYTES) } else { self.count()? };
        // One byte above the limit tells that there is more.
        self.inflated.reserve_exact(expected.clamp(length + 1, self.limit.saturating_add(1).max(length + 1)) - length);
        self.inflated.extend_from_slice(&more);
        self.check_limit()?;
        Ok(true)
    }

    fn check_limit(&self) -> Result<(), InflateError> {
        if self.limit < self.inflated.len() {
            return Err(InflateError::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Bytes that come out in all, in no memory to speak of.
    fn count(&self) -> Result<usize, InflateError> {
        let mut reader = self.compression.reader(self.bytes.clone())?;
        let (mut length, mut piece) = (0, vec![0; STEP_BYTES]);
        loop {
            let read = reader.read(&mut piece)?;
            length += read;
            if self.limit < length {
                return Err(InflateError::TooLarge { limit: self.limit });
            }
            if read == 0 {
                return Ok(length);
            }
        }
    }

    /// What came out so far.
    pub fn inflated(&self) -> &[u8] {
        &self.inflated
    }

    /// What came out.
    pub fn into_inflated(self) -> Vec<u8> {
        self.inflated
    }
}

/// Gzip members, one behind the other.
struct GzipMembers {
    /// `None` behind the last one.
    open: Option<GzDecoder<Cursor<Bytes>>>,
    /// How many may be there, this one included.
    left: u32,
}

impl Read for GzipMembers {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.open {
            let read = member.read(out)?;
            if 0 < read || out.is_empty() {
                return Ok(read);
            }
            let rest = self.open.take().map(GzDecoder::into_inner);
            let rest = rest.filter(|rest| rest.position() < rest.get_ref().len() as u64);
            self.left -= 1;
            if rest.is_some() && self.left == 0 {
                return Err(io::Error::other(format!("more than {GZIP_MEMBERS_MAX} members")));
            }
            self.open = rest.map(GzDecoder::new);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(body: Vec<u8>) -> Result<Vec<u8>, InflateError> {
        let mut inflating = Inflating::new(body, Compression::Gzip, 1024)?;
        while inflating.step()? {}
        Ok(inflating.into_inflated())
    }

    #[test]
    fn a_length_that_is_noted_wrong_changes_nothing() {
        let whole: Vec<u8> = (0..3_000_u16).flat_map(|at| [at.to_be_bytes()[1]; 1_000]).collect();
        for noted in [0, 1, 2_999_999, 3_000_000, 3_000_001, u32::MAX] {
            let mut body = gzip(&whole);
            let end = body.len();
            body[end - 4..].copy_from_slice(&noted.to_le_bytes());
            let mut inflating = Inflating::new(body, Compression::Gzip, 4_000_000).unwrap();
            let outcome = std::iter::repeat_with(|| inflating.step()).find(|step| !matches!(step, Ok(true))).unwrap();
            // The checksum's neighbour is checked by the decoder itself; what came out is right either way.
            assert_eq!(outcome.is_ok(), noted == 3_000_000, "{noted}: {outcome:?}");
            let deflated = inflating.into_inflated();
            assert!(whole.starts_with(&deflated) && deflated.capacity() <= 4_000_001);
        }
    }

    #[test]
    fn gzip_members_follow_each_other_and_nothing_else_follows_them() {
        let two = [gzip(b"one, "), gzip(b""), gzip(b"another")].concat();
        assert_eq!(inflated(two.clone()).unwrap(), b"one, another");
        for rest in [&b"\0"[..], b"\x1f\x8b", b"more"] {
            assert!(matches!(inflated([&two, rest].concat()), Err(InflateError::Damaged(_))), "{rest:?}");
        }
    }

    /// 16 MiB of gzip members of nothing kept a thread that serves connections busy for 19 s.
    #[test]
    fn sec_01_members_of_nothing_end_at_a_limit() {
        let most = GZIP_MEMBERS_MAX as usize;
        assert_eq!(inflated(gzip(b"").repeat(most)).unwrap(), b"");
        let error = inflated(gzip(b"").repeat(most + 1)).unwrap_err();
        assert_eq!(error.to_string(), "more than 4096 members");
    }
}
