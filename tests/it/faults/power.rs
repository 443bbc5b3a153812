//! Power cuts: the image below a running server's file system is copied while the server stands still. The copy holds what
//! reached the disk, no more; a second server starts on it and is asked for everything that was acknowledged until then.
//!
//! Needs root and loop devices. Five cuts by default, `SPANDREL_CUTS=200` in the long form.

use std::path::Path;

use crate::support::{ChildServer, Random};

use super::kills::{busy, sealing_after, unsealed};
use super::mount::{Mount, ext4_image, memory_dir};
use super::witness::{Addresses, Witness, three_senders, under_load};
use super::{count, is_long, progress, run, say, seeded, skip};

/// Segments of 64 MiB are preallocated: the image is sparse and takes what is written.
const IMAGE_MIB: u64 = 1_024;
const CUTS_PER_IMAGE: u64 = 10;
/// The file system writes nothing on its own account while the copy is made, and keeps what nobody synced in memory.
const OPTIONS: &str = "commit=600";

/// Why this machine cannot cut power this way; `None` when it can.
pub(super) fn no_loop_mounts() -> Option<String> {
    let dir = memory_dir();
    ext4_image(dir.path(), 16).and_then(|image| Mount::image(&image, OPTIONS)).err()
}

fn signal(server: &ChildServer, name: &str) {
    let _said = run("kill", &[name, &server.child.id().to_string()]).expect("kill runs");
}

/// What the cuts hit.
#[derive(Debug, Default)]
struct Hits {
    sealings: u64,
    after_a_sync: u64,
    acknowledged: u64,
}

#[test]
fn rel_02_no_acknowledged_span_is_lost_by_a_power_cut() {
    if let Some(why) = no_loop_mounts() {
        return skip("rel_02, power cuts", &why);
    }
    let mut random = seeded("cuts");
    let cuts = count("SPANDREL_CUTS", 5, 200);
    let (mut done, mut hits) = (0, Hits::default());
    while done < cuts {
        let of_image = CUTS_PER_IMAGE.min(cuts - done);
        cut_one_image(&mut random, of_image, &mut hits);
        done += of_image;
        progress("cuts", done, cuts);
    }
    say(&format!("cuts: {cuts}, {hits:?}"));
}

fn cut_one_image(random: &mut Random, cuts: u64, hits: &mut Hits) {
    let memory = memory_dir();
    let image = ext4_image(memory.path(), IMAGE_MIB).expect("an image");
    let disk = Mount::image(&image, OPTIONS).expect("it can be mounted");
    let witness = Witness::default();
    let mut senders = three_senders(random.next());
    // Rotation and sealing all the time: a cut is as likely within them as anywhere.
    let command = sealing_after(&disk.path().join("data"), "400ms", random);
    let server = ChildServer::from(&mut { command }).expect("it starts");
    let traces = if is_long() { 400 } else { 40 };
    for cut in 0..cuts {
        let (before, rest, sync) = (random.millis(50..700), random.millis(1..150), random.one_in(3));
        hits.after_a_sync += u64::from(sync);
        under_load(&mut senders, &Addresses::of(&server), &witness, traces, || {
            std::thread::park_timeout(before);
            if sync {
                // What nobody synced reaches the disk as well, up to here.
                let _said = run("sync", &["-f", &disk.path().display().to_string()]).expect("sync runs");
            }
            std::thread::park_timeout(rest);
            let _standing_still = Stopped::new(&server);
            let copy = memory.path().join("cut.ext4");
            let (from, to) = (image.display().to_string(), copy.display().to_string());
            let _said = run("cp", &["--sparse=always", &from, &to]).expect("the image is copied");
            start_on(&copy, &witness, random, &format!("cut {cut} of this image"), hits);
        });
    }
    hits.acknowledged += witness.acknowledged();
    drop(server);
}

/// A process that stands still until this is dropped. Its clients wait for answers that it gave before or gives after.
struct Stopped<'a>(&'a ChildServer);

impl<'a> Stopped<'a> {
    fn new(server: &'a ChildServer) -> Self {
        signal(server, "-STOP");
        Self(server)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

fn start_on(copy: &Path, witness: &Witness, random: &mut Random, context: &str, hits: &mut Hits) {
    let disk = Mount::image(copy, "errors=remount-ro").expect("ext4 replays its own journal");
    let data = disk.path().join("data");
    hits.sealings += u64::from(1 < unsealed(&data));
    let server = ChildServer::from(&mut busy(&data, random)).expect("it starts after any power cut");
    witness.check_everything(&server).assert_clean(context);
    assert!(!server.said().contains("panicked"), "{}", server.said());
}

/// ext4 that meets an error goes read-only under the running server, as on a failing disk.
#[test]
fn rel_06_on_a_disk_that_became_read_only_ingest_is_refused_and_questions_go_on() {
    if let Some(why) = no_loop_mounts() {
        return skip("rel_06, read-only disk", &why);
    }
    let memory = memory_dir();
    let image = ext4_image(memory.path(), IMAGE_MIB).expect("an image");
    let disk = Mount::image(&image, "errors=remount-ro").expect("it can be mounted");
    let device = run("findmnt", &["-no", "SOURCE", &disk.path().display().to_string()]).expect("findmnt runs");
    let trigger = Path::new("/sys/fs/ext4").join(device.trim().trim_start_matches("/dev/")).join("trigger_fs_error");
    if !trigger.exists() {
        return skip("rel_06, read-only disk", &format!("no {}", trigger.display()));
    }
    let witness = Witness::default();
    let mut senders = three_senders(7);
    let server = ChildServer::start(&disk.path().join("data")).expect("it starts");
    senders[0].send(&server, 20, &witness);
    std::fs::write(&trigger, "the test says so").expect("the file system is told");
    super::space::assert_refuses_and_answers(&server, &witness, "read-only");
}
