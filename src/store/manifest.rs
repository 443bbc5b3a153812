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
//! service 52311 1795466599000000000 812401223 shop checkout
//!         (spans, last seen, longest latency, namespace and name percent-encoded)
//! file 524288 9f0c3a5577aa0011 store/db
//! checksum 0123456789abcdef
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::block::ServiceCount;
use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::StoreError;
use super::files;

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
    /// Spans per service.
    pub services: Vec<ServiceCount>,
    /// Every file of the database: bytes, XXH3-64, path below the partition.
    pub files: Vec<(u64, u64, String)>,
}

impl Manifest {
    /// Whether a span of the partition may lie in `range`.
    pub fn meets(&self, range: TimeRange) -> bool {
        range.meets(self.min_time, self.max_time)
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nspans {}\nblocks {}\nlast_sequence {}\nmin_time_unix_nano {}\nmax_time_unix_nano {}\n",
            self.spans, self.blocks, self.last_sequence, self.min_time.0, self.max_time.0
        );
        for service in &self.services {
            let (namespace, name) = (escape(&service.namespace), escape(&service.service));
            let (spans, last_seen, max) = (service.spans, service.last_seen.0, service.max_latency.0);
            let _infallible = writeln!(text, "service {spans} {last_seen} {max} {namespace} {name}");
        }
        for (bytes, hash, path) in &self.files {
            let _infallible = writeln!(text, "file {bytes} {hash:016x} {path}");
        }
        let checksum = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let _infallible = writeln!(text, "checksum {checksum:016x}");
        text
    }

    /// `None` when the text is not whole.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (body, checksum) = text.trim_end().rsplit_once('\n')?;
        let checksum = u64::from_str_radix(checksum.strip_prefix("checksum ")?, 16).ok()?;
        if xxhash_rust::xxh3::xxh3_64(format!("{body}\n").as_bytes()) != checksum {
            return None;
        }
        let mut lines = body.lines();
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
                "service" => manifest.services.push(parse_service(value)?),
                "file" => {
                    let mut fields = value.splitn(3, ' ');
                    let bytes = fields.next()?.parse().ok()?;
                    let hash = u64::from_str_radix(fields.next()?, 16).ok()?;
                    manifest.files.push((bytes, hash, fields.next()?.to_owned()));
                }
                _ => return None,
            }
        }
        Some(manifest)
    }
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
fn escape(text: &str) -> String {
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

fn unescape(escaped: &str) -> Option<String> {
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

/// Bytes, hash and path of every file below `dir`, the path taken from `root`.
pub(super) fn hash_files(root: &Path, dir: &Path) -> Result<Vec<(u64, u64, String)>, StoreError> {
    let mut hashed = Vec::new();
    for name in files::entry_names(dir) {
        let path = dir.join(&name);
        if path.is_dir() && !path.is_symlink() {
            hashed.extend(hash_files(root, &path)?);
            continue;
        }
        let bytes =
            fs::read(&path).map_err(|source| StoreError::File { action: "read", path: path.clone(), source })?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        hashed.push((bytes.len() as u64, xxhash_rust::xxh3::xxh3_64(&bytes), shown));
    }
    Ok(hashed)
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
