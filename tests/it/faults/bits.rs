//! Bit rot: flipped bits, and pages zeroed, doubled or swapped, in every file of a data directory.
//!
//! Sixty damages by default, `SPANDREL_DAMAGES=1000` in the long form.

use std::path::Path;

use crate::support::Random;

use super::fixture::{Fixture, Outcome, open_and_ask};
use super::{count, progress, say, seeded};

const PAGE: usize = 4_096;

/// Damages one file and says how.
fn damage(file: &Path, random: &mut Random) -> String {
    let mut bytes = std::fs::read(file).expect("it is read");
    if bytes.is_empty() {
        std::fs::write(file, "x").expect("it is written");
        return "a byte where there was none".to_owned();
    }
    // Where something is written; preallocated zeros are one page for all.
    let pages = bytes.len().div_ceil(PAGE);
    let written: Vec<usize> = (0..pages)
        .filter(|no| bytes[no * PAGE..bytes.len().min((no + 1) * PAGE)].iter().any(|byte| *byte != 0))
        .collect();
    let mut page = || if written.is_empty() { 0 } else { random.pick(&written) };
    let (from, to) = (page(), page());
    let said = match random.below(if pages < 2 { 2 } else { 5 }) {
        0 | 1 => {
            let at = (from * PAGE + random.below(PAGE as u64) as usize).min(bytes.len() - 1);
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let end = bytes.len().min((from + 1) * PAGE);
            bytes[from * PAGE..end].fill(0);
            format!("page {from} zeroed")
        }
        3 => {
            let len = PAGE.min(bytes.len() - from * PAGE).min(bytes.len() - to * PAGE);
            bytes.copy_within(from * PAGE..from * PAGE + len, to * PAGE);
            format!("page {from} also in the place of page {to}")
        }
        _ => {
            let len = PAGE.min(bytes.len() - from * PAGE).min(bytes.len() - to * PAGE);
            for at in 0..len {
                bytes.swap(from * PAGE + at, to * PAGE + at);
            }
            format!("pages {from} and {to} swapped")
        }
    };
    std::fs::write(file, bytes).expect("it is written");
    said
}

/// How many damages came to what.
#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    named: u64,
    refused: u64,
}

#[test]
fn rel_04_damage_in_any_file_is_named_and_nothing_wrong_is_ever_served() {
    let fixture = Fixture::make();
    let mut random = seeded("damages");
    let damages = count("SPANDREL_DAMAGES", 60, 1_000);
    let (mut tally, mut broken) = (Tally::default(), Vec::new());
    for no in 0..damages {
        // Every file in turn, so that small ones are met as often as large ones.
        let file = &fixture.files[(no % fixture.files.len() as u64) as usize];
        let dir = fixture.copy();
        let said = damage(&dir.path().join(file), &mut random);
        let context = format!("damage {no}, {}: {said}", file.display());
        match open_and_ask(dir.path(), &fixture.witness) {
            Ok(Outcome::Whole) => tally.whole += 1,
            Ok(Outcome::Named) => tally.named += 1,
            Ok(Outcome::Refused(said)) => {
                let name = file.file_name().expect("a name").to_string_lossy().into_owned();
                if !said.contains(&name) {
                    broken.push(format!("{context}: the refusal names no file: {said}"));
                }
                tally.refused += 1;
            }
            Err(why) => broken.push(format!("{context}: {why}")),
        }
        progress("damages", no + 1, damages);
    }
    say(&format!("damages: {damages}, {tally:?}"));
    assert!(broken.is_empty(), "{} of {damages}: {broken:#?}", broken.len());
}
