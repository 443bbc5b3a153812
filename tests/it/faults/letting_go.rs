//! `kill -9` and full disks while spans are let go: while a partition becomes what is left of it, and while several of those
//! become one.
//!
//! The process that is killed is this test binary, started again as a child that does nothing else. Eight kills at random
//! moments and one before each of a few system calls by default, `SPANDREL_LETTING_GO_KILLS=1000` in the long form.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::days::{Days, Opened, STAGES};
use super::mount::{Mount, memory_dir};
use super::space::Filling;
use super::{count, is_long, progress, run, say, seeded, skip};

/// Name of the test that is the child.
const CHILD: &str = "faults::letting_go::rel_15_what_is_let_go_stage_by_stage_keeps_every_number";
/// Directory of the child, and the first of its stages.
const CHILD_DIR: &str = "SPANDREL_LETTING_GO_DIR";
const CHILD_STAGE: &str = "SPANDREL_LETTING_GO_STAGE";
/// What it says, followed by a number.
const STAGE: &str = "letting go, stage ";
/// The calls that change what a start finds.
const CALLS: [&str; 4] = ["rename", "unlinkat", "fsync", "mkdir"];
/// There are fewer of each.
const CALLS_MAX: u64 = 10_000;
/// What a short run takes: the call and its number.
const SHORT: [(&str, u64); 4] = [("rename", 3), ("rename", 4), ("unlinkat", 2), ("fsync", 4)];
const DISK_MIB: u64 = 24;
/// Bytes that a partition of the shop takes or so.
const MOST_OF_A_REWRITING: u64 = 100_000;

/// Without a directory of its own it lets everything go undisturbed.
#[test]
fn rel_15_what_is_let_go_stage_by_stage_keeps_every_number() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        let (days, dir) = (Days::shared(), memory_dir());
        days.copy_to(dir.path());
        for (stage, hour) in STAGES.into_iter().enumerate() {
            Opened::at(dir.path(), hour).let_go().expect("nothing is in its way");
            days.check_dir(dir.path(), stage, &format!("after stage {stage}"));
        }
        let names = Opened::at(dir.path(), STAGES[0]).names();
        assert!(names.len() == 2 && names[0].contains("-000001-000004-"), "four became one: {names:?}");
        return;
    };
    let first: usize = std::env::var(CHILD_STAGE).expect("with its stage").parse().expect("a number");
    for (stage, hour) in STAGES.into_iter().enumerate().skip(first) {
        let opened = Opened::at(Path::new(&dir), hour);
        say(&format!("\n{STAGE}{stage}"));
        opened.let_go().expect("nothing is in its way");
    }
}

/// This test binary as the child, from a stage on; below `strace` it is killed before its n-th call of a kind.
fn child(dir: &Path, stage: usize, killed_before: Option<(&str, u64)>) -> Command {
    let own = std::env::current_exe().expect("it has a path");
    let mut command = Command::new(if killed_before.is_some() { Path::new("strace") } else { own.as_path() });
    if let Some((call, n)) = killed_before {
        let _command = command.args(["-f", "-qq", "-e", "signal=none", "-o", "/dev/null"]);
        let _command = command.args(["-e", &format!("trace={call}")]);
        let _command = command.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]).arg(&own);
    }
    let _command = command.args(["--exact", CHILD, "--nocapture"]);
    let _command = command.env(CHILD_DIR, dir).env(CHILD_STAGE, stage.to_string());
    let _command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What it said until it ended; the stage that it was in.
struct Running {
    child: Child,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
    stage: usize,
}

impl Running {
    /// Returns once it is about to let go, or has ended.
    fn start(mut command: Command, stage: usize) -> Self {
        let mut child = command.spawn().expect("the child starts");
        let said = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let mut running = Self { child, said, stage };
        let _has_begun = running.next_stage();
        running
    }

    fn next_stage(&mut self) -> bool {
        let stage = self.said.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(STAGE)?.parse().ok());
        self.stage = stage.unwrap_or(self.stage);
        stage.is_some()
    }

    /// Its last stage, and whether it came to its end.
    fn end(mut self) -> (usize, bool) {
        while self.next_stage() {}
        (self.stage, self.child.wait().expect("it can be waited for").success())
    }
}

/// What a kill left on the disk.
#[derive(Debug, Default)]
struct Hits {
    unfinished: u64,
    both_generations: u64,
    half_removed: u64,
    /// Between one partition and the next.
    none_of_these: u64,
}

impl Hits {
    fn count(&mut self, data_dir: &Path) {
        let entries = std::fs::read_dir(data_dir.join("partitions")).expect("it can be listed");
        let names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // Numbers of the partitions that a later generation stands for.
        let covers = |later: &str, other: &str| {
            let numbers: Vec<&str> = later.split('-').skip(1).collect();
            let own = other.split('-').nth(1).unwrap_or_default();
            later != other && 2 <= numbers.len() && numbers[0] <= own && own <= numbers[numbers.len() - 2]
        };
        let has = |ending: &str| names.iter().any(|name| name.ends_with(ending));
        let plain: Vec<&String> = names.iter().filter(|name| !name.contains('.')).collect();
        if has(".drop") {
            self.half_removed += 1;
        } else if has(".building") {
            self.unfinished += 1;
        } else if plain.iter().any(|later| plain.iter().any(|other| covers(later, other))) {
            self.both_generations += 1;
        } else {
            self.none_of_these += 1;
        }
    }
}

#[test]
fn rel_15_kill_9_while_spans_are_let_go_loses_no_partition_and_no_number() {
    let (days, mut random) = (Days::shared(), seeded("letting go"));
    let kills = count("SPANDREL_LETTING_GO_KILLS", 8, 1_000);
    let (mut killed, mut hits) = (0, Hits::default());
    // How long it takes undisturbed, once that is known.
    let mut longest = Duration::from_millis(300);
    while killed < kills {
        let dir = memory_dir();
        days.copy_to(dir.path());
        let mut stage = 0;
        loop {
            let mut running = Running::start(child(dir.path(), stage, None), stage);
            let began = Instant::now();
            if killed < kills {
                std::thread::park_timeout(random.millis(0..longest.as_millis() as u64));
                running.child.kill().expect("it can be killed");
            }
            let (reached, has_ended) = running.end();
            stage = reached;
            if has_ended {
                longest = began.elapsed().max(Duration::from_millis(20));
                break;
            }
            killed += 1;
            hits.count(dir.path());
            days.check_dir(dir.path(), stage, &format!("after kill {killed}"));
            progress("kills while letting go", killed, kills);
        }
        days.check_dir(dir.path(), STAGES.len() - 1, "in the end");
    }
    say(&format!("kills while letting go: {killed}, {hits:?}"));
}

/// One directory, one kill. `false` when there is no n-th such call.
fn kill_before(days: &Days, call: &str, n: u64, hits: &mut Hits) -> bool {
    let (dir, context) = (memory_dir(), format!("killed before {call} {n}"));
    days.copy_to(dir.path());
    let (stage, has_ended) = Running::start(child(dir.path(), 0, Some((call, n))), 0).end();
    if !has_ended {
        hits.count(dir.path());
    }
    days.check_dir(dir.path(), stage, &context);
    let opened = Opened::at(dir.path(), STAGES[stage]);
    opened.let_go().expect("nothing is in its way");
    days.check(&opened, stage, &format!("{context}, then let go"));
    !has_ended
}

#[test]
fn rel_15_a_kill_before_any_system_call_of_letting_go_loses_no_partition_and_no_number() {
    if let Err(why) = run("strace", &["-qq", "-e", "inject=fsync:signal=KILL:when=9", "-o", "/dev/null", "true"]) {
        return skip("rel_15, kills before system calls", &why);
    }
    let (days, mut hits) = (Days::shared(), Hits::default());
    for call in CALLS.into_iter().filter(|_| is_long()) {
        let met = (1..=CALLS_MAX).take_while(|n| kill_before(days, call, *n, &mut hits)).count();
        say(&format!("kills while letting go: before each of {met} calls of {call}"));
    }
    for (call, n) in SHORT.into_iter().filter(|_| !is_long()) {
        assert!(kill_before(days, call, n, &mut hits), "{call} {n} is made");
    }
    say(&format!("kills while letting go, before system calls: {hits:?}"));
    assert!(hits.unfinished != 0 && hits.both_generations != 0 && hits.half_removed != 0, "{hits:?}");
}

/// The disk is full in the middle of it, at once or after some pages.
#[test]
fn rel_06_letting_go_on_a_full_disk_loses_nothing_is_named_and_goes_on_when_there_is_space() {
    let disk = match Mount::tmpfs(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skip("rel_06, letting go on a full disk", &why),
    };
    let (days, mut random) = (Days::shared(), seeded("letting go"));
    let mut refused = 0;
    for fill in 0..count("SPANDREL_LETTING_GO_FILLS", 1, 100) {
        let data = disk.path().join(fill.to_string());
        std::fs::create_dir(&data).expect("there is space");
        days.copy_to(&data);
        for (stage, hour) in STAGES.into_iter().enumerate() {
            let (opened, context) = (Opened::at(&data, hour), format!("fill {fill}, stage {stage}"));
            let mut filling = Filling::new(disk.path());
            filling.give_back(if stage == 0 { 0 } else { random.below(MOST_OF_A_REWRITING) });
            let outcome = opened.let_go();
            if let Err(why) = outcome {
                days.check(&opened, stage, &format!("{context}, {why}"));
                refused += 1;
                assert!(why.contains("No space left"), "{context}: {why}");
                let told = opened.query.warnings();
                assert!(told.len() == 1 && told[0].contains("No space left"), "{context}: {told:?}");
                assert_ne!(opened.counters.retention_failures.value(), 0, "{context}");
                drop(filling);
                opened.let_go().unwrap_or_else(|why| panic!("{context}: there is space again, but {why}"));
            }
            days.check(&opened, stage, &context);
            assert_eq!(opened.query.warnings(), [""; 0], "{context}");
        }
        days.check_dir(&data, STAGES.len() - 1, &format!("fill {fill}"));
        std::fs::remove_dir_all(&data).expect("it goes");
    }
    say(&format!("full disks while letting go: {refused}"));
    assert_ne!(refused, 0, "some were full");
}
