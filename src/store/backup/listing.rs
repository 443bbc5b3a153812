//! `BACKUP`: the last file written into a backup. Without it there is no backup, only the beginning of one.
//!
//! ```text
//! spandrel-backup 1
//! program 0.1.0
//! began 2026-11-24T01:39:15Z
//! format spandrel 2
//! partition sealed 4 1234567 20261124T003915Z-000001       (form, files, bytes, name)
//! partition journal 1 65536 20261124T013915Z-000002
//! file 524288 9f0c3a5577aa0011 partitions/20261124T003915Z-000001/BLOCKS
//! checksum 0123456789abcdef
//! ```

use std::fmt::Write as _;
use std::path::Path;

use crate::store::{StoreError, files, manifest};

const FIRST_LINE: &str = "spandrel-backup 1";
/// Name of the file.
pub(super) const NAME: &str = "BACKUP";

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupList {
    /// Version of the program that made it.
    pub program: String,
    /// When it began, RFC 3339: every span acknowledged before is in it.
    pub began: String,
    /// What the source's FORMAT says.
    pub format: String,
    /// Its partitions, oldest first.
    pub partitions: Vec<BackupPartition>,
    /// Every file: bytes, XXH3-64, path below the backup. FORMAT is the last one.
    pub files: Vec<(u64, u64, String)>,
}

/// One partition in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupPartition {
    /// Name of its directory.
    pub name: String,
    /// Whether it is sealed; of others there is the journal, and the next start makes their database of it.
    pub sealed: bool,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl BackupList {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(bytes, ..)| bytes).sum()
    }

    /// Reads the list of a finished backup.
    pub(super) fn read(dir: &Path) -> Result<Self, StoreError> {
        let text = std::fs::read_to_string(dir.join(NAME)).ok();
        text.and_then(|text| Self::parse(&text)).ok_or_else(|| StoreError::UnfinishedBackup { path: dir.to_path_buf() })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        files::write_durably(&dir.join(NAME), self.to_text().as_bytes())
    }

    fn to_text(&self) -> String {
        let mut text =
            format!("{FIRST_LINE}\nprogram {}\nbegan {}\nformat {}\n", self.program, self.began, self.format);
        for BackupPartition { name, sealed, files, bytes } in &self.partitions {
            let form = if *sealed { "sealed" } else { "journal" };
            let _infallible = writeln!(text, "partition {form} {files} {bytes} {name}");
        }
        manifest::write_files(&mut text, &self.files);
        manifest::with_checksum(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = manifest::without_checksum(text)?.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut list = Self::default();
        for line in lines {
            match line.split_once(' ')? {
                ("program", program) => program.clone_into(&mut list.program),
                ("began", began) => began.clone_into(&mut list.began),
                ("format", format) => format.clone_into(&mut list.format),
                ("partition", partition) => list.partitions.push(parse_partition(partition)?),
                ("file", file) => list.files.push(manifest::parse_file(file)?),
                _ => return None,
            }
        }
        Some(list)
    }
}

fn parse_partition(line: &str) -> Option<BackupPartition> {
    let mut fields = line.splitn(4, ' ');
    let sealed = match fields.next()? {
        "sealed" => true,
        "journal" => false,
        _ => return None,
    };
    let (files, bytes) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(BackupPartition { name: fields.next()?.to_owned(), sealed, files, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_whole_and_any_flipped_bit_is_seen() {
        let list = BackupList {
            program: "0.1.0".to_owned(),
            began: "2026-11-24T01:39:15Z".to_owned(),
            format: "spandrel 2".to_owned(),
            partitions: vec![BackupPartition { name: "x-1".to_owned(), sealed: true, files: 2, bytes: 9 }],
            files: vec![(9, 0xabc, "partitions/x-1/store/db with space".to_owned())],
        };
        let text = list.to_text();
        assert_eq!(BackupList::parse(&text), Some(list));
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(BackupList::parse(&String::from_utf8(damaged).unwrap()), None, "flip at {at}");
        }
    }
}
