//! Disks that are full, go read-only, or lose the directory under the running server.
//!
//! Full and free again needs root (a tmpfs of its own): three times by default, `SPANDREL_FILLS=100` in the long form.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use crate::support::{ChildServer, Random};

use super::kills::busy;
use super::mount::Mount;
use super::witness::{Addresses, Client, Door, Sent, Witness, three_senders, under_load};
use super::{count, progress, say, seeded, skip};

const DISK_MIB: u64 = 320;
/// How long a full disk may go unnoticed under load: blocks pile up, then requests are refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);
/// How long after there is space again.
const RESUMES_WITHIN: Duration = Duration::from_secs(5);

/// Takes all the space of a disk, also what becomes free later; gives it back when dropped.
pub(super) struct Filling {
    path: PathBuf,
    file: std::fs::File,
    length: u64,
}

impl Filling {
    pub(super) fn new(disk: &Path) -> Self {
        let path = disk.join("filling");
        let file = std::fs::File::create(&path).expect("an empty file fits on any disk");
        let mut filling = Self { path, file, length: 0 };
        filling.top_up();
        filling
    }

    /// So many bytes or a little more become free.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.length = self.length.saturating_sub(bytes);
        self.file.set_len(self.length).expect("a file can become shorter");
    }

    fn top_up(&mut self) {
        for piece in [4 << 20, 64 << 10, 4 << 10] {
            while rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.length, piece).is_ok() {
                self.length += piece;
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_file(&self.path);
    }
}

/// Sends until a request is refused; `None` when none is in time.
fn until_refused(probe: &mut Probe, witness: &Witness, mut meanwhile: impl FnMut()) -> Option<Sent> {
    let began = Instant::now();
    while began.elapsed() < REFUSED_WITHIN {
        meanwhile();
        match probe.send(witness) {
            Sent::Acknowledged => {}
            other => return Some(other),
        }
    }
    None
}

/// One request after the other, each with its answer in hand.
pub(super) struct Probe {
    client: Client,
    shop: spandrel::cli::shop::Shop,
}

impl Probe {
    pub(super) fn new(server: &ChildServer, seed: u64) -> Self {
        Self { client: Client::new(Door::Grpc, Addresses::of(server)), shop: spandrel::cli::shop::Shop::new(seed) }
    }

    pub(super) fn send(&mut self, witness: &Witness) -> Sent {
        use spandrel::cli::shop::{Grouping, Requests};
        let mut requests = Requests::new(Grouping::Collector);
        let _not_full = requests.add(self.shop.next_trace(crate::support::now()));
        let request = requests.flush().remove(0);
        witness.note(&request, false);
        let sent = self.client.send(&request);
        if sent == Sent::Acknowledged {
            witness.note(&request, true);
        }
        sent
    }
}

/// From now on the server takes nothing, says so with a hint, answers questions, and names the reason in `/ready`.
#[track_caller]
pub(super) fn assert_refuses_and_answers(server: &ChildServer, witness: &Witness, reason: &str) {
    let mut probe = Probe::new(server, 99);
    let refused = until_refused(&mut probe, witness, || {}).expect("requests are refused");
    assert!(matches!(&refused, Sent::Refused { hint: true, .. }), "{refused:?}");
    let ready = server.get("/ready");
    assert!(ready.status == 503 && ready.text().contains(reason), "{} {}", ready.status, ready.text());
    witness.check_everything(server).assert_clean("questions go on");
}

#[test]
fn rel_06_a_full_disk_refuses_with_a_hint_and_ingest_resumes_by_itself_when_there_is_space() {
    let disk = match Mount::tmpfs(DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skip("rel_06, full disk", &why),
    };
    let mut random = seeded("fills");
    let fills = count("SPANDREL_FILLS", 2, 100);
    let (mut witness, mut data) = (Witness::default(), disk.path().join("0"));
    let mut server = ChildServer::from(&mut with_small_heads(&data, &mut random)).expect("it starts");
    for fill in 0..fills {
        if fill % 10 == 9 {
            // A directory of its own for every ten, restarted once before it goes: what is there must be all there is.
            server.kill();
            server = ChildServer::from(&mut with_small_heads(&data, &mut random)).expect("it starts");
            witness.assert_everything(&server);
            drop(server);
            std::fs::remove_dir_all(&data).expect("the directory goes");
            (witness, data) = (Witness::default(), disk.path().join(fill.to_string()));
            server = ChildServer::from(&mut with_small_heads(&data, &mut random)).expect("it starts");
        }
        fill_once(&server, disk.path(), &witness, &mut random, fill);
        progress("fills", fill + 1, fills);
    }
    server.kill();
    let server = ChildServer::from(&mut with_small_heads(&data, &mut random)).expect("it starts");
    witness.assert_everything(&server);
    say(&format!("fills: {fills}"));
}

/// The heads take what comes until they cannot become blocks: smaller ones are full sooner, and everything that was taken is
/// compared in the end.
fn with_small_heads(data: &Path, random: &mut Random) -> Command {
    let mut command = busy(data, random);
    let _command = command.args(["--memory", "64MiB"]);
    command
}

fn fill_once(server: &ChildServer, disk: &Path, witness: &Witness, random: &mut Random, fill: u64) {
    let mut senders = three_senders(random.next());
    let before = random.millis(50..600);
    witness.begin_round(fill);
    let refused = under_load(&mut senders, &Addresses::of(server), witness, 400, || {
        std::thread::park_timeout(before);
        let mut filling = Filling::new(disk);
        let refused = until_refused(&mut Probe::new(server, random.next()), witness, || filling.top_up());
        assert_eq!(server.get("/spandrel/v1/services").status, 200, "questions go on");
        if refused.is_some() {
            let ready = server.get("/ready");
            assert_eq!(ready.status, 503, "fill {fill}: {refused:?}, but {}\n{}", ready.text(), server.said());
        }
        refused
    });
    let refused = refused.unwrap_or_else(|| panic!("fill {fill}: nothing was refused: {}", server.said()));
    assert!(matches!(&refused, Sent::Refused { hint: true, .. }), "fill {fill}: {refused:?}");
    let freed = Instant::now();
    let mut probe = Probe::new(server, random.next());
    while probe.send(witness) != Sent::Acknowledged {
        assert!(freed.elapsed() < RESUMES_WITHIN, "fill {fill}: still refused: {}", server.said());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    witness.assert_since(fill, server, &format!("after fill {fill}"));
}

/// Somebody removes the data directory under the running server: what is written from then on goes with the last file
/// handle. A server that went on acknowledging lost all of it at the next restart.
#[test]
fn rel_06_a_data_directory_that_vanished_takes_no_more_spans() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let witness = Witness::default();
    let server = ChildServer::start(&data).expect("it starts");
    let mut probe = Probe::new(&server, 1);
    assert_eq!(probe.send(&witness), Sent::Acknowledged);
    std::fs::remove_dir_all(&data).expect("it goes");
    let refused = probe.send(&witness);
    assert!(matches!(&refused, Sent::Refused { .. }), "{refused:?}");
    let ready = server.get("/ready");
    assert!(ready.status == 503 && ready.text().contains("could not be synced"), "{}", ready.text());
    assert_eq!(server.get("/spandrel/v1/services").status, 200, "questions go on");
}
