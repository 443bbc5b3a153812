//! Start-up never guesses: files of a data directory missing, emptied, replaced by links, and strangers among them.
//!
//! Thirty mutilations by default, `SPANDREL_MUTILATIONS=300` in the long form.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::Random;

use super::fixture::{Fixture, Outcome, SILENTLY, files_below, open_and_ask};
use super::{count, progress, say, seeded};

/// What a stranger holds; it must be somewhere below the data directory after the start.
const FOREIGN: &str = "this is no file of yours";

/// What was done.
struct Mutilation {
    said: String,
    /// Strangers among the files.
    foreign: usize,
    /// The newest end of the journal is gone: nothing on the disk says that there was more.
    unnoticeable: bool,
}

/// Names that look like ours or nearly so.
const FOREIGN_NAMES: [&str; 8] = [
    "notes.txt",
    "journal/99999999.log",
    "journal/18446744073709551615.log",
    "journal/+7.log",
    "journal/7.log",
    "SEALED.draft",
    "mine.drop",
    "20991231T000000Z-000009",
];

fn mutilate(dir: &Path, files: &[PathBuf], random: &mut Random) -> Mutilation {
    let file = &files[random.below(files.len() as u64) as usize];
    let path = dir.join(file);
    let newest = files.iter().rfind(|file| file.extension().is_some_and(|end| end == "log")) == Some(file);
    let mut done = Mutilation { said: String::new(), foreign: 0, unnoticeable: false };
    let kind = random.below(7);
    done.unnoticeable = newest && kind < 3;
    done.said = match kind {
        0 => {
            std::fs::remove_file(&path).expect("it goes");
            format!("{} is missing", file.display())
        }
        1 => {
            std::fs::write(&path, "").expect("it is emptied");
            format!("{} is empty", file.display())
        }
        2 => {
            std::fs::remove_file(&path).expect("it goes");
            symlink("/nowhere/at/all", &path).expect("a link");
            format!("{} is a link to nowhere", file.display())
        }
        3 => {
            let elsewhere = dir.join("elsewhere");
            std::fs::rename(&path, &elsewhere).expect("it is moved");
            symlink(&elsewhere, &path).expect("a link");
            format!("{} is a link to what it was", file.display())
        }
        4 => {
            let parent = path.parent().expect("a parent");
            symlink(".", parent.join("loop")).and_then(|()| symlink(".", parent.join("loop2"))).expect("links");
            format!("links that lead nowhere but here beside {}", file.display())
        }
        _ => {
            let (name, partition) = (random.pick(&FOREIGN_NAMES), random.pick(&[true, false]));
            let partitions = dir.join("partitions");
            let mut own: Vec<_> = std::fs::read_dir(&partitions).expect("listed").flatten().collect();
            own.sort_by_key(std::fs::DirEntry::file_name);
            let within = if partition { own.last().expect("there are some").path() } else { partitions };
            foreign(&within.join(name), random, &mut done)
        }
    };
    done
}

fn foreign(path: &Path, random: &mut Random, done: &mut Mutilation) -> String {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    done.foreign = 1;
    if random.one_in(2) {
        std::fs::write(path, FOREIGN).expect("it is written");
        return format!("a foreign file {}", path.display());
    }
    std::fs::create_dir(path).expect("a directory");
    std::fs::write(path.join("inside"), FOREIGN).expect("it is written");
    format!("a foreign directory {}", path.display())
}

fn strangers(dir: &Path) -> usize {
    files_below(dir)
        .iter()
        .filter(|file| std::fs::read(file).is_ok_and(|content| content == FOREIGN.as_bytes()))
        .count()
}

#[test]
fn rel_22_start_up_opens_quarantines_or_refuses_by_name_and_deletes_nothing_that_is_not_its_own() {
    let fixture = Fixture::make();
    let mut random = seeded("mutilations");
    let mutilations = count("SPANDREL_MUTILATIONS", 30, 300);
    let (mut opened, mut refused, mut broken) = (0, 0, Vec::new());
    for no in 0..mutilations {
        let dir = fixture.copy();
        let done = mutilate(dir.path(), &fixture.files, &mut random);
        let context = format!("mutilation {no}, {}", done.said);
        match open_and_ask(dir.path(), &fixture.witness) {
            Ok(Outcome::Whole | Outcome::Named) => opened += 1,
            Ok(Outcome::Refused(said)) if said.contains(&dir.path().display().to_string()) => refused += 1,
            Ok(Outcome::Refused(said)) => broken.push(format!("{context}: the refusal names no file: {said}")),
            Err(why) if done.unnoticeable && why.starts_with(SILENTLY) => opened += 1,
            Err(why) => broken.push(format!("{context}: {why}")),
        }
        if strangers(dir.path()) != done.foreign {
            broken.push(format!("{context}: the foreign file is gone"));
        }
        progress("mutilations", no + 1, mutilations);
    }
    say(&format!("mutilations: {mutilations}, opened {opened}, refused {refused}"));
    assert!(broken.is_empty(), "{} of {mutilations}: {broken:#?}", broken.len());
}
