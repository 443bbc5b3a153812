//! `SEALED`: the last file written into a partition. Text, so that a person can read it; a checksum, so that a machine
//! can trust it.
//!
//! ```text
//! spandrel-sealed 1
//! spans 1048576
//! blocks 16
//! last_sequence 2048
//! min_time_unix_nano 1795463000000000000
//! max_time_unix_nano 1795466600000000000
//! finest_secs 10
//! service 52311 1795466599000000000 812401223 shop checkout
//!         (spans, last seen, longest latency, namespace and name percent-encoded)
//! left 9004 1795466599000000000 40000000 shop cart
//! file 524288 9f0c3a5577aa0011 BLOCKS
//! checksum 0123456789abcdef
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::block::ServiceCount;
use crate::latency::Resolution;
use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::StoreError;
use super::copying::hash_file;

const FIRST_LINE: &str = "spandrel-sealed 1";

/// What a sealed partition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Spans in all blocks.
    pub spans: u64,
    /// Blocks, numbered from 1.
    pub blocks: u64,
    /// Journal sequence up to which everything is in.
    pub last_sequence: u64,
    /// Earliest start or end of any span.
    pub min_time: UnixNanos,
    /// Latest start or end of any span.
    pub max_time: UnixNanos,
    /// Spans per service, of those whose spans are all here.
    pub services: Vec<ServiceCount>,
    /// Those that the roll-ups count, although of their spans only the ones of pinned traces are still here.
    pub left: Vec<ServiceCount>,
    /// The finest roll-ups of what left; `None` when there are none.
    pub finest: Option<Resolution>,
    /// Every file of the partition but this one: bytes, XXH3-64, path below the partition.
    pub files: Vec<(u64, u64, String)>,
}

impl Manifest {
    /// Whether a span of the partition may lie in `range`.
    pub fn meets(&self, range: TimeRange) -> bool {
        range.meets(self.min_time, self.max_time)
    }

    /// Whether all spans of some service are here, as opposed to pinned traces alone.
    pub fn is_live(&self) -> bool {
        !self.services.is_empty()
    }

    /// Whether roll-ups are all that is left but for pinned traces.
    pub fn is_remnant(&self) -> bool {
        self.services.is_empty() && !self.left.is_empty()
    }

    /// Every service that is counted here, whether its spans are still here or not.
    pub fn counted_services(&self) -> impl Iterator<Item = &ServiceCount> {
        self.services.iter().chain(&self.left)
    }

    /// The manifest of a partition's directory; `None` when there is none, or it is not whole.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(dir.join("SEALED")).ok()?)
    }

    /// What a partition holds, for a person.
    pub(super) fn describe(&self) -> String {
        let shown = |at: UnixNanos| {
            let at = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
            jiff::Timestamp::from_second(at).unwrap_or(jiff::Timestamp::MAX)
        };
        format!("{} spans from {} to {}", self.spans, shown(self.min_time), shown(self.max_time))
    }

    /// Whether a file of the partition is not as it was sealed. Reads all of them, unless a length tells already.
    pub(super) fn differs(&self, dir: &Path) -> bool {
        let has_len = |(bytes, _, path): &(u64, u64, String)| {
            fs::metadata(dir.join(path)).is_ok_and(|metadata| metadata.len() == *bytes)
        };
        let is_same = |(bytes, hash, path): &(u64, u64, String)| {
            hash_file(&dir.join(path), &mut |_| {}).is_ok_and(|found| found == (*bytes, *hash))
        };
        !(self.files.iter().all(has_len) && self.files.iter().all(is_same))
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nspans {}\nblocks {}\nlast_sequence {}\nmin_time_unix_nano {}\nmax_time_unix_nano {}\n",
            self.spans, self.blocks, self.last_sequence, self.min_time.0, self.max_time.0
        );
        let _infallible = writeln!(text, "finest_secs {}", self.finest.map_or(0, Resolution::secs));
        for (key, services) in [("service", &self.services), ("left", &self.left)] {
            for service in services {
                let (namespace, name) = (escape(&service.namespace), escape(&service.service));
                let (spans, last_seen, max) = (service.spans, service.last_seen.0, service.max_latency.0);
                let _infallible = writeln!(text, "{key} {spans} {last_seen} {max} {namespace} {name}");
            }
        }
        write_files(&mut text, &self.files);
        with_checksum(text)
    }

    /// Refuses a manifest that is whole, but of another version.
    pub(super) fn check_version(dir: &Path) -> Result<(), StoreError> {
        let path = dir.join("SEALED");
        let text = fs::read_to_string(&path).unwrap_or_default();
        match without_checksum(&text).and_then(|body| body.lines().next()) {
            Some(found) if found != FIRST_LINE => {
                Err(StoreError::UnknownFormat { path, found: found.to_owned(), known: FIRST_LINE })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// `None` when the text is not whole.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = without_checksum(text)?.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut manifest = Self::default();
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            match key {
                "spans" => manifest.spans = value.parse().ok()?,
                "blocks" => manifest.blocks = value.parse().ok()?,
                "last_sequence" => manifest.last_sequence = value.parse().ok()?,
                "min_time_unix_nano" => manifest.min_time = UnixNanos(value.parse().ok()?),
                "max_time_unix_nano" => manifest.max_time = UnixNanos(value.parse().ok()?),
                "finest_secs" if value == "0" => manifest.finest = None,
                "finest_secs" => manifest.finest = Some(resolution_of(value)?),
                "service" => manifest.services.push(parse_service(value)?),
                "left" => manifest.left.push(parse_service(value)?),
                "file" => manifest.files.push(parse_file(value)?),
                _ => return None,
            }
        }
        Some(manifest)
    }
}

/// One `file` line each: bytes, XXH3-64, path.
pub(super) fn write_files(text: &mut String, files: &[(u64, u64, String)]) {
    for (bytes, hash, path) in files {
        let _infallible = writeln!(text, "file {bytes} {hash:016x} {path}");
    }
}

/// A `file` line without its first word.
pub(super) fn parse_file(line: &str) -> Option<(u64, u64, String)> {
    let mut fields = line.splitn(3, ' ');
    let bytes = fields.next()?.parse().ok()?;
    let hash = u64::from_str_radix(fields.next()?, 16).ok()?;
    Some((bytes, hash, fields.next()?.to_owned()))
}

/// The text with a last line that speaks for all others.
pub(super) fn with_checksum(mut text: String) -> String {
    let checksum = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    let _infallible = writeln!(text, "checksum {checksum:016x}");
    text
}

/// The lines in front of the last one; `None` when that does not speak for them.
pub(super) fn without_checksum(text: &str) -> Option<&str> {
    let (body, checksum) = text.trim_end().rsplit_once('\n')?;
    let checksum = u64::from_str_radix(checksum.strip_prefix("checksum ")?, 16).ok()?;
    let with_end = text.get(..=body.len())?;
    (xxhash_rust::xxh3::xxh3_64(with_end.as_bytes()) == checksum).then_some(body)
}

/// The resolution of so many seconds; `None` when there is none.
fn resolution_of(secs: &str) -> Option<Resolution> {
    let secs: u64 = secs.parse().ok()?;
    Resolution::ALL.into_iter().find(|resolution| resolution.secs() == secs)
}

fn parse_service(line: &str) -> Option<ServiceCount> {
    let mut fields = line.split(' ');
    let spans = fields.next()?.parse().ok()?;
    let last_seen = UnixNanos(fields.next()?.parse().ok()?);
    let max_latency = DurationNanos(fields.next()?.parse().ok()?);
    let namespace = unescape(fields.next()?)?;
    Some(ServiceCount { namespace, service: unescape(fields.next()?)?, spans, last_seen, max_latency })
}

/// Percent-encodes everything but letters, digits, `.`, `_` and `-`.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}

pub(super) fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(first) = rest.chars().next() {
        if first == '%' {
            bytes.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
            rest = rest.get(3..)?;
        } else {
            bytes.extend_from_slice(first.to_string().as_bytes());
            rest = rest.get(first.len_utf8()..)?;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_whole_and_any_flipped_bit_is_seen() {
        let manifest = Manifest {
            spans: 7,
            blocks: 2,
            last_sequence: 9,
            min_time: UnixNanos(1),
            max_time: UnixNanos(u64::MAX),
            services: vec![ServiceCount {
                namespace: String::new(),
                service: "a b%/\u{e9}".to_owned(),
                spans: 7,
                last_seen: UnixNanos(8),
                max_latency: DurationNanos(9),
            }],
            left: vec![ServiceCount {
                namespace: "shop".to_owned(),
                service: "cart".to_owned(),
                spans: 70,
                last_seen: UnixNanos(80),
                max_latency: DurationNanos(90),
            }],
            finest: Some(Resolution::Minute),
            files: vec![(12, 0xabc, "store/db with space".to_owned())],
        };
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text), Some(manifest));
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(Manifest::parse(&String::from_utf8(damaged).unwrap()), None, "flip at {at}");
        }
    }
}
