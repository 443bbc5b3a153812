//! `kill -9` under load, in the middle of whatever the server does: replay, checkpoints, rotation, sealing.
//!
//! Twenty kills by default, `SPANDREL_KILLS=1000` in the long form.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{ChildServer, Random, serve};

use super::witness::{Addresses, Witness, three_senders, under_load};
use super::{count, progress, say, seeded};

/// A directory serves for this many kills; then everything in it is compared, and a new one begins.
const KILLS_PER_DIRECTORY: u64 = 50;
/// Kills during a start, each within the start after the one before.
const NESTED_MAX: u64 = 5;

/// A server that writes small blocks and small partitions, so that it is always in the middle of something.
pub(super) fn busy(dir: &Path, random: &mut Random) -> Command {
    let age = random.pick(&["300ms", "1s", "1h"]);
    sealing_after(dir, age, random)
}

/// The same with partitions of that age.
pub(super) fn sealing_after(dir: &Path, partition_age: &str, random: &mut Random) -> Command {
    let mut command = serve(dir);
    let _command = command.args(["--checkpoint-interval", random.pick(&["60ms", "250ms", "1s"])]);
    let _command = command.args(["--partition-age", partition_age]);
    command
}

/// Starts a server and kills it `after`, whether it was ready by then or not.
fn kill_a_start(command: &mut Command, after: Duration) {
    let mut child = command.stderr(Stdio::null()).spawn().expect("the binary starts");
    std::thread::park_timeout(after);
    child.kill().expect("it can be killed");
    let _status = child.wait().expect("it can be waited for");
}

/// Partitions that are not sealed: more than one when a kill came in between rotation and the end of sealing.
pub(super) fn unsealed(data_dir: &Path) -> usize {
    let Ok(partitions) = std::fs::read_dir(data_dir.join("partitions")) else { return 0 };
    partitions.flatten().filter(|partition| !partition.path().join("SEALED").exists()).count()
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    starts: u64,
    sealings: u64,
    acknowledged: u64,
}

#[test]
fn rel_01_rel_27_no_acknowledged_span_is_lost_by_kill_9_and_the_numbers_agree() {
    let mut random = seeded("kills");
    let kills = count("SPANDREL_KILLS", 20, 1_000);
    let (mut done, mut hits) = (0, Hits::default());
    while done < kills {
        let until = kills.min(done + KILLS_PER_DIRECTORY);
        kill_one_directory(&mut random, done..until, &mut hits);
        done = until;
        progress("kills", done, kills);
    }
    say(&format!("kills: {kills}, {hits:?}"));
}

fn kill_one_directory(random: &mut Random, kills: std::ops::Range<u64>, hits: &mut Hits) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let witness = Witness::default();
    let mut senders = three_senders(random.next());
    let mut kill = kills.start;
    while kill < kills.end {
        let nested = if random.one_in(4) { 1 + random.below(NESTED_MAX) } else { 0 };
        for _level in 0..nested.min(kills.end - kill - 1) {
            kill_a_start(&mut busy(dir.path(), random), random.millis(0..100));
            (hits.starts, kill) = (hits.starts + 1, kill + 1);
        }
        let mut server = ChildServer::from(&mut busy(dir.path(), random)).expect("it starts after any kill");
        witness.assert_since(kill.saturating_sub(2), &server, &format!("before kill {kill}"));
        witness.begin_round(kill);
        let delay = random.millis(50..1_500);
        under_load(&mut senders, &Addresses::of(&server), &witness, 16, || {
            std::thread::park_timeout(delay);
            server.kill();
        });
        hits.sealings += u64::from(1 < unsealed(dir.path()));
        kill += 1;
    }
    let server = ChildServer::from(&mut busy(dir.path(), random)).expect("it starts after any kill");
    witness.assert_everything(&server);
    hits.acknowledged += witness.acknowledged();
}
