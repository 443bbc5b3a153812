//! System calls that fail once, at the n-th time, in the real binary: `strace` injects the error.
//!
//! A few by default; the long form takes every n until a run has fewer such calls. `SPANDREL_CALLS` bounds n.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{ChildServer, serve};

use super::space::Probe;
use super::witness::{Sent, Witness};
use super::{count, is_long, run, say, skip};

/// System calls, and the error that they give. `write` is left out: it also wakes threads and writes the log. The journal
/// writes through it, which `journal/tests.rs` has fail at every n.
const FAULTS: [(&str, &str); 8] = [
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("sync_file_range", "EIO"),
    ("fallocate", "ENOSPC"),
    ("ftruncate", "EIO"),
    ("rename", "EIO"),
    ("unlinkat", "EIO"),
];
/// What a short run takes: the n-th calls that hit the journal, a checkpoint and sealing.
const SHORT: [(usize, u64); 6] = [(0, 1), (0, 4), (1, 3), (2, 5), (4, 2), (6, 1)];
const REQUESTS: usize = 14;

fn under_strace(dir: &Path, log: &Path, call: &str, error: &str, n: u64) -> Command {
    let plain = serve(dir);
    let mut command = Command::new("strace");
    let _command = command.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(log);
    let _command = command.args(["-e", &format!("trace={call}")]);
    let _command = command.args(["-e", &format!("inject={call}:error={error}:when={n}")]);
    let _command = command.arg(plain.get_program()).args(plain.get_args());
    let _command = command.args(["--checkpoint-interval", "50ms", "--partition-age", "300ms"]);
    command
}

/// What a run came to.
enum Run {
    /// There is no n-th call of that kind.
    NotReached,
    /// It was met, at the start or under load.
    Met,
}

/// One run with one failing call, then one without on the same directory: nothing that was acknowledged is missing.
fn one(call: &str, error: &str, n: u64) -> Run {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (data, log) = (dir.path().join("data"), dir.path().join("calls"));
    let witness = Witness::default();
    // A start that meets the error may refuse; it is tried again, as a supervisor would.
    if let Ok(server) = ChildServer::from(&mut under_strace(&data, &log, call, error, n)) {
        let Traced(server) = &Traced(server);
        let mut probe = Probe::new(server, n);
        for _ in 0..REQUESTS {
            if let Sent::Failed(why) = probe.send(&witness) {
                panic!("{call} {n}: {why}\n{}", server.said());
            }
            std::thread::park_timeout(Duration::from_millis(40));
        }
        assert_eq!(server.get("/healthz").status, 200, "{call} {n}: it lives");
        // The n-th call of a thread that asks may fail as well: then the answer says what it could not read.
        let findings = witness.check_since(0, server);
        let told = findings.lost.is_empty() || !findings.named.is_empty();
        assert!(told && findings.wrong.is_empty(), "{call} {n}, before the restart: {findings:?}");
        // sled ends by a panic when its last fsync fails; the store catches it and tries again.
        let said = server.said();
        let panics = said.lines().filter(|line| line.contains("panicked") && !line.contains("sled-0.34.7"));
        assert_eq!(panics.count(), 0, "{call} {n}: {said}");
    }
    let met = std::fs::read_to_string(&log).unwrap_or_default().contains("(INJECTED)");
    let server = ChildServer::start(&data).unwrap_or_else(|said| panic!("{call} {n}: it starts again: {said}"));
    witness.check_everything(&server).assert_clean(&format!("{call} {n}, after the restart"));
    if met { Run::Met } else { Run::NotReached }
}

/// A server below strace. Killing strace alone would leave it running.
struct Traced(ChildServer);

impl Drop for Traced {
    fn drop(&mut self) {
        let tracer = self.0.child.id().to_string();
        if let Ok(server) = run("ps", &["-o", "pid=", "--ppid", &tracer]) {
            let _already_gone = run("kill", &["-9", server.trim()]);
        }
        // strace ends with it.
        let _status = self.0.child.wait();
    }
}

#[test]
fn rel_05_a_system_call_that_fails_leads_to_no_false_acknowledgement() {
    if let Err(why) = run("strace", &["-qq", "-e", "inject=fsync:error=EIO:when=1", "-o", "/dev/null", "true"]) {
        return skip("rel_05, failing system calls", &why);
    }
    let mut met = 0;
    if is_long() {
        for (call, error) in FAULTS {
            let mut n = 1;
            while n <= count("SPANDREL_CALLS", 0, 60) && matches!(one(call, error, n), Run::Met) {
                n += 1;
            }
            say(&format!("calls: {call} {error}, each of the first {}", n - 1));
            met += n - 1;
        }
    } else {
        for (at, n) in SHORT {
            met += u64::from(matches!(one(FAULTS[at].0, FAULTS[at].1, n), Run::Met));
        }
    }
    say(&format!("calls: {met} runs met their error"));
    assert_ne!(met, 0, "the errors were met");
}
