//! Whose turn it is among the questions that take long: few go on at once, so that what each of them may hold adds up to little.
//! First come, first served.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Long questions that go on at once: one that takes its whole time must not hold up all others.
pub(super) const TURNS: usize = 2;

/// The turns of all questions of a process.
#[derive(Debug, Default)]
pub(super) struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    taken: usize,
    /// Numbers of those that wait, the first one first.
    waiting: VecDeque<u64>,
    next: u64,
}

/// Given back at its end.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.line.lock().taken -= 1;
        let _woken = self.0.moved.notify_all();
    }
}

impl Line {
    fn is_turn_of(&self, number: u64) -> bool {
        self.taken < TURNS && self.waiting.front() == Some(&number)
    }
}

impl Turns {
    /// Waits in line; `None` when no turn came in time, or `has_gone` was true before.
    pub(super) fn wait(self: &Arc<Self>, until: Instant, has_gone: &dyn Fn() -> bool) -> Option<Turn> {
        let mut line = self.line.lock();
        let number = line.next;
        line.next += 1;
        line.waiting.push_back(number);
        let waits = |line: &mut Line| !has_gone() && !line.is_turn_of(number);
        let _in_time = self.moved.wait_while_until(&mut line, waits, until);
        let comes = !has_gone() && line.is_turn_of(number);
        line.waiting.retain(|waiting| *waiting != number);
        line.taken += usize::from(comes);
        drop(line);
        // Who stood behind may be the first one now.
        let _woken = self.moved.notify_all();
        comes.then(|| Turn(Arc::clone(self)))
    }

    /// Everyone in line looks again whether they have gone. What says so must be true before.
    pub(super) fn look_again(&self) {
        // Behind the lock nobody is between their look and their sleep.
        drop(self.line.lock());
        let _woken = self.moved.notify_all();
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn n_waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const STAYS: &dyn Fn() -> bool = &|| false;

    fn later() -> Instant {
        clock::instant() + Duration::from_hours(1)
    }

    fn all(turns: &Arc<Turns>) -> Vec<Turn> {
        (0..TURNS).map(|_| turns.wait(clock::instant(), STAYS).expect("it is free")).collect()
    }

    fn until_so_many_wait(turns: &Turns, n: usize) {
        while turns.n_waiting() < n {
            thread::yield_now();
        }
    }

    #[test]
    fn there_are_so_many_turns_and_one_that_is_given_back_is_there_again() {
        let turns = Arc::new(Turns::default());
        let mut taken = all(&turns);
        assert!(turns.wait(clock::instant(), STAYS).is_none());
        drop(taken.pop());
        taken.extend(turns.wait(clock::instant(), STAYS));
        assert_eq!(taken.len(), TURNS);
        assert!(turns.wait(clock::instant(), STAYS).is_none());
        assert_eq!(turns.n_waiting(), 0, "who has given up stands in line no more");
    }

    #[test]
    fn who_came_first_is_first() {
        let turns = Arc::new(Turns::default());
        let mut taken = all(&turns);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            for number in 0..5 {
                let (turns, tell) = (&turns, tell.clone());
                let _ends_with_the_scope = scope.spawn(move || tell.send((number, turns.wait(later(), STAYS))));
                until_so_many_wait(turns, number + 1);
            }
            for number in 0..5 {
                drop(taken.pop());
                let (next, turn) = told.recv().unwrap();
                assert_eq!(next, number);
                taken.push(turn.expect("a turn"));
            }
        });
    }
}
