//! Faults by the hundred: kills, power cuts, failing system calls, full disks, flipped bits, mutilated directories. What
//! must hold is in `docs/reliability.md`; `witness` is the oracle of all of them.
//!
//! Short by default, for every change. `just soak` runs the long forms: `SPANDREL_FAULTS=long`, each count also by a
//! variable of its own. Every random test prints its seed; `SPANDREL_SEED=<seed>` repeats it.

mod bits;
mod calls;
mod days;
mod fixture;
mod kills;
mod letting_go;
mod mount;
mod mutilation;
mod overload;
mod power;
mod space;
mod truncation;
pub(crate) mod witness;

use std::io::Write as _;
use std::process::Command;

use crate::support::Random;

/// Said past the capture of the test harness, so that it is seen also when the test passes.
pub(crate) fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stderr(), "{line}");
}

/// Says which test did not run, and why.
pub(crate) fn skip(test: &str, why: &str) {
    say(&format!("SKIPPED {test}: {why}"));
}

fn is_long() -> bool {
    std::env::var("SPANDREL_FAULTS").is_ok_and(|depth| depth == "long")
}

/// How often: what the variable says, else the short or the long count.
fn count(variable: &str, short: u64, long: u64) -> u64 {
    let by_depth = if is_long() { long } else { short };
    std::env::var(variable).ok().map_or(by_depth, |n| n.parse().expect("a number"))
}

/// Says how far a long run has come.
fn progress(test: &str, done: u64, of: u64) {
    if is_long() && done.is_multiple_of(10) {
        say(&format!("{test}: {done} of {of}"));
    }
}

/// From `SPANDREL_SEED`, else from the clock; said either way.
fn seeded(test: &str) -> Random {
    let seed = std::env::var("SPANDREL_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed = seed.unwrap_or_else(|| crate::support::now().0 % 1_000_000_007);
    say(&format!("{test}: SPANDREL_SEED={seed}"));
    Random(seed)
}

/// Runs a command to its end; `Err` holds the command and what it said.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{program} {}: {}{said}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
}
