//! `spandrel backup` beside a running server, `spandrel restore` into a new directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::HumanBytes;

use crate::clock::Clock;
use crate::journal::{self, JournalError};
use crate::store::{self, BackupList, BackupOutcome, CopiedJournal, StoreError};

use super::data_dir::{DataDirArgs, bytes_bar};
use super::{counted, print};

/// Flags of `backup`.
#[derive(clap::Args, Debug)]
pub(super) struct BackupArgs {
    /// Directory of the backup: new, empty, or one that holds an earlier backup
    #[arg(value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    data: DataDirArgs,
}

/// Flags of `restore`.
#[derive(clap::Args, Debug)]
pub(super) struct RestoreArgs {
    /// Directory of a finished backup
    backup: PathBuf,
    /// Where the data directory is to be: new or empty
    #[arg(long, env = "SPANDREL_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

/// Copies; 0 when everything is in the backup, 1 when the source is damaged somewhere.
pub(super) fn run(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let began = Clock::system().now();
    let data_dir = args.data.resolve()?.store.data_dir;
    let bar = bytes_bar(store::source_bytes(&data_dir))?;
    let outcome = store::backup(&data_dir, &args.to, began, &copy_journal, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    print(&report(&data_dir, &args.to, &outcome))?;
    for damaged in &outcome.damaged {
        eprintln!("spandrel: {damaged}");
    }
    if outcome.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("spandrel: the data directory is damaged, the backup holds the rest; see `spandrel check`");
    Ok(ExitCode::FAILURE)
}

fn report(data_dir: &Path, to: &Path, outcome: &BackupOutcome) -> String {
    let list = &outcome.list;
    let to = to.display();
    let mut lines = vec![
        format!("{} is backed up in {to}: {}", data_dir.display(), summary(list)),
        format!(
            "{} copied now, {} there already",
            HumanBytes(outcome.copied_bytes),
            counted(outcome.kept, "partition")
        ),
        format!("every span acknowledged before {} is in it", list.began),
    ];
    let left = |name: &String| format!("left by retention meanwhile, not in it: {name}");
    let unlisted = |name: &String| format!("no longer in the data directory, still in {to}, not listed: {name}");
    lines.extend(outcome.left.iter().map(left));
    lines.extend(outcome.unlisted.iter().map(unlisted));
    lines.join("\n") + "\n"
}

fn summary(list: &BackupList) -> String {
    let sealed = list.partitions.iter().filter(|partition| partition.sealed).count();
    let journals = list.partitions.len() - sealed;
    format!("{}, {}, {}", counted(sealed, "sealed partition"), counted(journals, "journal"), HumanBytes(list.bytes()))
}

/// The store asks, the journal answers: neither knows the other.
fn copy_journal(from: &Path, to: &Path) -> Result<CopiedJournal, StoreError> {
    let (segments, damaged) = journal::copy(from, to).map_err(|error| match error {
        JournalError::Copy { path, source } => StoreError::File { action: "write", path, source },
        JournalError::Unreadable { path, source } => StoreError::File { action: "read", path, source },
        other => StoreError::Differs { path: from.to_path_buf(), what: other.to_string() },
    })?;
    let damaged = damaged.iter().map(|at| {
        let path = at.path.display();
        format!("{path}: bytes {} to {} are damaged; they were copied as they are", at.start, at.end)
    });
    Ok(CopiedJournal {
        damaged: damaged.collect(),
        segments: segments.into_iter().map(|segment| (segment.bytes, segment.hash, segment.name)).collect(),
    })
}

/// Copies back; everything is verified on the way.
pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let bar = bytes_bar(store::source_bytes(&args.backup))?;
    let list = store::restore(&args.backup, &args.data_dir, &mut |bytes| bar.inc(bytes))
        .with_context(|| format!("cannot restore {}", args.backup.display()))?;
    bar.finish_and_clear();
    print(&format!(
        "{} holds the backup of {}: {}\nstart with `spandrel serve --data-dir {}`\n",
        args.data_dir.display(),
        list.began,
        summary(&list),
        args.data_dir.display(),
    ))
}
