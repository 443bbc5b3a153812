//! `spandrel check`: is everything in the data directory what was written? With `--repair`, damage goes to quarantine.

use std::process::ExitCode;

use anyhow::bail;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::ingest;
use crate::journal::{self, Scanned};
use crate::store::{DatabaseReport, IdleDir, IdlePartition, Standing, StoreConfig, StoreError};

use super::data_dir::DataDirArgs;
use super::{counted, print};

/// Exit code when nothing could be checked.
pub(super) const NOT_CHECKED: u8 = 2;

/// Flags of `check`.
#[derive(clap::Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    data: DataDirArgs,
    /// Move what is damaged into quarantine/, so that the server starts without it; nothing is deleted
    #[arg(long)]
    repair: bool,
    /// Print JSON for scripts
    #[arg(long)]
    json: bool,
}

/// What was found in a data directory.
#[derive(Debug, Serialize)]
struct Report {
    data_dir: String,
    format: String,
    sound: bool,
    partitions: Vec<PartitionReport>,
    /// Traces pinned by hand.
    pins: usize,
    /// What is damaged beside partitions.
    faults: Vec<String>,
    quarantine: Vec<String>,
    leftovers: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct PartitionReport {
    name: String,
    sealed: bool,
    spans: u64,
    blocks: u64,
    /// Whole records of the journal, and the spans of those that are in no block yet.
    journal_records: u64,
    journal_spans: u64,
    faults: Vec<String>,
    notes: Vec<String>,
    moved_to: Option<String>,
}

/// The end of the partition before: where the next journal should begin.
#[derive(Clone, Copy, Debug)]
struct Before {
    seq: u64,
    last_sequence: u64,
}

/// 0 when everything is sound, 1 when something is damaged, also when it was moved.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.data.resolve()?.store;
    let dir = match IdleDir::lock(&config.data_dir) {
        Err(StoreError::Locked { path, pid }) => {
            bail!("{} is in use by process {pid}; stop it, or check a backup of it", path.display())
        }
        other => other?,
    };
    let partitions = dir.partitions();
    let bar = ProgressBar::new(partitions.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} partitions {wide_msg}")?);
    let mut report = Report {
        data_dir: config.data_dir.display().to_string(),
        format: dir.format.clone(),
        sound: true,
        partitions: Vec::new(),
        pins: 0,
        faults: Vec::new(),
        quarantine: Vec::new(),
        leftovers: dir.leftovers(),
    };
    let mut before = None;
    for idle in &partitions {
        let (mut found, database_is_sound) = check(idle, &config, &mut before, &bar);
        if args.repair {
            found.moved_to = repair(&dir, idle, database_is_sound, &found)?;
        }
        report.sound &= found.faults.is_empty();
        report.partitions.push(found);
        bar.inc(1);
    }
    bar.finish_and_clear();
    match dir.check_pins() {
        Ok(pins) => report.pins = pins,
        Err(fault) => report.faults.push(fault),
    }
    report.sound &= report.faults.is_empty();
    report.quarantine = dir.quarantined();
    print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report, args.repair) })?;
    Ok(if report.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(
    idle: &IdlePartition,
    config: &StoreConfig,
    before: &mut Option<Before>,
    bar: &ProgressBar,
) -> (PartitionReport, bool) {
    let mut bytes = 0;
    let name = idle.name();
    let database = idle.check(config, &mut |more| {
        bytes += more;
        bar.set_message(format!("{name} {}", HumanBytes(bytes)));
    });
    let database_is_sound = database.faults.is_empty();
    let mut last_sequence = database.covered;
    let mut found = PartitionReport {
        name,
        sealed: idle.standing == Standing::Sealed,
        spans: database.spans,
        blocks: database.blocks,
        ..PartitionReport::default()
    };
    let journal_is_sound =
        idle.standing != Standing::Unsealed || check_journal(idle, &database, *before, &mut found, &mut last_sequence);
    let rebuilt = idle.standing == Standing::Unsealed && !database_is_sound;
    let prefix = if rebuilt { "database: " } else { "" };
    let of_database: Vec<String> = database.faults.iter().map(|fault| format!("{prefix}{fault}")).collect();
    found.faults.splice(0..0, of_database);
    found.notes.extend(database.notes);
    if rebuilt && journal_is_sound {
        found.notes.push("no span is lost: the next start rebuilds the database of the journal".to_owned());
    }
    *before = Some(Before { seq: idle.last_seq(), last_sequence });
    (found, database_is_sound)
}

/// Whether the journal is whole.
fn check_journal(
    idle: &IdlePartition,
    database: &DatabaseReport,
    before: Option<Before>,
    found: &mut PartitionReport,
    last_sequence: &mut u64,
) -> bool {
    let mut undecodable = Vec::new();
    let scanned = journal::scan(&idle.journal_dir(), database.covered, &mut |header, payload| {
        match payload.map(ingest::count_spans) {
            Some(Ok(spans)) => found.journal_spans += spans,
            Some(Err(error)) => undecodable.push(format!("record {} of the journal: {error}", header.sequence)),
            None => {}
        }
        Ok(())
    });
    let scanned = match scanned {
        Ok(scanned) => scanned,
        Err(error) => {
            found.faults.push(format!("{:#}", anyhow::Error::from(error)));
            return false;
        }
    };
    found.journal_records = scanned.records;
    *last_sequence = scanned.last_sequence.max(database.covered);
    found.faults.append(&mut undecodable);
    note_damage(&scanned, database.covered, found);
    let adjacent = before.filter(|before| before.seq + 1 == idle.seq() && 0 < scanned.records);
    if let Some(before) = adjacent.filter(|before| before.last_sequence + 1 < scanned.first_sequence) {
        found.faults.push(missing(before.last_sequence + 1, scanned.first_sequence, database.covered));
    }
    if scanned.last_sequence < database.covered {
        found.faults.push(missing(scanned.last_sequence + 1, database.covered + 1, database.covered));
    }
    found.faults.is_empty()
}

fn note_damage(scanned: &Scanned, covered: u64, found: &mut PartitionReport) {
    let segment = |path: &std::path::Path| {
        format!("journal/{}", path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    };
    for at in &scanned.damaged {
        found.faults.push(format!("{}: bytes {} to {} are damaged", segment(&at.path), at.start, at.end));
    }
    for gap in &scanned.missing {
        found.faults.push(missing(gap.start, gap.end, covered));
    }
    for at in &scanned.torn {
        let bytes = at.end - at.start;
        found.notes.push(format!(
            "{}: {bytes} bytes of an unfinished record from byte {} on; such a record was not acknowledged",
            segment(&at.path),
            at.start
        ));
    }
}

/// Records `[first, end)`.
fn missing(first: u64, end: u64, covered: u64) -> String {
    let last = end - 1;
    let fate = if last <= covered { "their spans are in blocks" } else { "their spans are lost unless in a block" };
    format!("the journal lacks records {first} to {last}; {fate}")
}

fn repair(
    dir: &IdleDir,
    idle: &IdlePartition,
    database_is_sound: bool,
    found: &PartitionReport,
) -> anyhow::Result<Option<String>> {
    Ok(match idle.standing {
        Standing::Sealed | Standing::SealLost if !found.faults.is_empty() => Some(dir.quarantine_partition(idle)?),
        Standing::Unsealed if !database_is_sound && idle.has_database() => Some(dir.quarantine_database(idle)?),
        Standing::Sealed | Standing::SealLost | Standing::Unsealed | Standing::Empty => None,
    })
}

fn text(report: &Report, repaired: bool) -> String {
    let mut lines = vec![format!("{}, format {}", report.data_dir, report.format)];
    for partition in &report.partitions {
        let verdict = if partition.faults.is_empty() { "ok     " } else { "DAMAGED" };
        lines.push(format!("{verdict}  {}  {}", partition.name, holdings(partition)));
        lines.extend(partition.faults.iter().map(|fault| format!("           {fault}")));
        lines.extend(partition.notes.iter().map(|note| format!("           note: {note}")));
        lines.extend(partition.moved_to.iter().map(|to| format!("           moved to quarantine/{to}")));
    }
    lines.extend(report.faults.iter().map(|fault| format!("DAMAGED  {fault}; the next start moves it to quarantine/")));
    if 0 < report.pins {
        lines.push(format!("ok       {}", counted(report.pins, "pinned trace")));
    }
    lines.extend(report.quarantine.iter().map(|name| format!("in quarantine: {name}")));
    lines.extend(report.leftovers.iter().map(|name| format!("left over, the next start finishes it: {name}")));
    let damaged = report.partitions.iter().filter(|partition| !partition.faults.is_empty()).count();
    let all = report.partitions.len();
    lines.push(match (damaged, repaired) {
        (0, _) if !report.sound => format!("{} sound, but not everything else", counted(all, "partition")),
        (0, _) => format!("sound: {}", counted(all, "partition")),
        (_, false) => format!(
            "{damaged} of {} damaged. Nothing was moved. Put a good copy of each in its place (`spandrel backup` makes \
             them), or move them to quarantine/ with --repair.",
            counted(all, "partition")
        ),
        (_, true) => format!(
            "{damaged} of {} damaged; what is named above was moved, nothing was deleted. Start the server: it answers \
             with the rest and says what is missing. To bring a partition back, put a good copy under its name into \
             partitions/ and take it out of quarantine/.",
            counted(all, "partition")
        ),
    });
    lines.join("\n") + "\n"
}

fn holdings(partition: &PartitionReport) -> String {
    let blocks = format!(
        "{} spans in {}",
        HumanCount(partition.spans),
        counted(usize::try_from(partition.blocks).unwrap_or(usize::MAX), "block")
    );
    if partition.sealed {
        return format!("sealed    {blocks}");
    }
    let (records, behind) = (HumanCount(partition.journal_records), HumanCount(partition.journal_spans));
    format!("unsealed  {blocks}; {records} journal records, {behind} spans of them in no block yet")
}
