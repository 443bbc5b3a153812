//! Who waits for an answer, and how much of the machine the question may take meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::QueryError;
use super::turns::{Turn, Turns};
use crate::clock;

/// A question that goes on for longer lets everything else on the machine go first, ingest above all, and goes on only when
/// it is its turn.
const IS_LONG_AFTER: Duration = Duration::from_millis(100);
/// How long a question that says nothing else waits for its turn, from its beginning.
const WAITS_WITHIN: Duration = Duration::from_secs(30);
/// Weighs about a thirtieth of a thread that gives no way (Linux, `sched(7)`).
const NICE: i32 = 15;

/// Lives as long as somebody waits for answers; its end ends the questions that read much.
#[derive(Debug)]
pub struct Asker(Arc<Waiting>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::SeqCst);
        self.0.turns.look_again();
    }
}

#[derive(Debug)]
struct Waiting {
    abandoned: AtomicBool,
    began: Instant,
    turns: Arc<Turns>,
}

/// What a question knows of its asker. The default waits for ever, on a thread that does other things as well.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// On a thread that is there for this question alone.
    own_thread: Option<OwnThread>,
}

#[derive(Debug)]
struct OwnThread {
    asker: Arc<Waiting>,
    /// It goes on as fast as others.
    may_give_way: AtomicBool,
    /// One at most, and to its end: who has one never waits for another.
    turn: OnceLock<Turn>,
}

impl Asked {
    /// A question on a thread of its own.
    pub(super) fn on_own_thread(turns: &Arc<Turns>) -> (Arc<Self>, Asker) {
        let asker = Waiting { abandoned: AtomicBool::new(false), began: clock::instant(), turns: Arc::clone(turns) };
        let asker = Arc::new(asker);
        let own = OwnThread { asker: Arc::clone(&asker), may_give_way: AtomicBool::new(true), turn: OnceLock::new() };
        (Arc::new(Self { own_thread: Some(own) }), Asker(asker))
    }

    /// Between two steps of a question that may be long, where it holds little: whether to go on. Waits when it is long and
    /// others are before it.
    pub(super) fn may_go_on(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        self.is_in_time(began, within)?;
        match &self.own_thread {
            Some(own) if IS_LONG_AFTER < began.elapsed() => own.take_turn(began, within),
            _ => Ok(()),
        }
    }

    /// The same where it holds much: without a wait.
    pub(super) fn is_in_time(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        let elapsed = began.elapsed();
        if let Some(own) = &self.own_thread {
            if own.asker.abandoned.load(Ordering::SeqCst) {
                return Err(QueryError::Abandoned);
            }
            if IS_LONG_AFTER < elapsed && own.may_give_way.swap(false, Ordering::Relaxed) {
                give_way();
            }
        }
        if within < elapsed { Err(QueryError::TooLong { within }) } else { Ok(()) }
    }

    /// In front of a step that takes much memory, however short the question was until then.
    pub(super) fn may_take_much(&self) -> Result<(), QueryError> {
        self.own_thread.as_ref().map_or(Ok(()), |own| own.take_turn(own.asker.began, WAITS_WITHIN))
    }
}

impl OwnThread {
    fn take_turn(&self, began: Instant, within: Duration) -> Result<(), QueryError> {
        if self.turn.get().is_some() {
            return Ok(());
        }
        let has_gone = || self.asker.abandoned.load(Ordering::SeqCst);
        match self.asker.turns.wait(began + within, &has_gone) {
            Some(turn) => {
                let _first = self.turn.set(turn);
                Ok(())
            }
            None if has_gone() => Err(QueryError::Abandoned),
            None => Err(QueryError::NoTurn { within }),
        }
    }
}

/// Of this thread, for the rest of its life: nobody may take it back without privileges.
#[cfg(target_os = "linux")]
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "a long question keeps its priority");
    }
}

/// Elsewhere priorities are those of whole processes.
#[cfg(not(target_os = "linux"))]
fn give_way() {
    let _ = NICE;
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::turns::TURNS;
    use super::*;

    fn questions(turns: &Arc<Turns>, n: usize) -> Vec<(Arc<Asked>, Asker)> {
        (0..n).map(|_| Asked::on_own_thread(turns)).collect()
    }

    /// Whether there is a turn that nobody has.
    fn is_one_free(turns: &Arc<Turns>) -> bool {
        turns.wait(clock::instant(), &|| false).is_some()
    }

    /// For a question that began so long ago that it is a long one.
    fn goes_on(asked: &Asked) -> Result<(), QueryError> {
        let began = clock::instant().checked_sub(IS_LONG_AFTER * 2).expect("the machine runs for longer");
        asked.may_go_on(began, Duration::from_hours(1))
    }

    #[test]
    fn a_long_question_has_one_turn_to_its_end_and_a_short_one_none() {
        let turns = Arc::default();
        let mut long = questions(&turns, TURNS);
        for (asked, _) in &long {
            asked.may_go_on(clock::instant(), Duration::from_hours(1)).unwrap();
        }
        assert!(is_one_free(&turns), "all are short yet");
        for (asked, _) in long.iter().cycle().take(3 * TURNS) {
            goes_on(asked).unwrap();
            asked.may_take_much().unwrap();
        }
        assert!(!is_one_free(&turns));
        let (asked, _asker) = long.pop().unwrap();
        drop(asked);
        assert!(is_one_free(&turns), "its end is that of the question, not of who waits for the answer");
    }

    /// Long questions that have all turns.
    fn busy(turns: &Arc<Turns>) -> Vec<(Arc<Asked>, Asker)> {
        let busy = questions(turns, TURNS);
        for (asked, _) in &busy {
            goes_on(asked).unwrap();
        }
        busy
    }

    #[test]
    fn a_turn_is_given_back_by_a_question_that_panics() {
        let turns = Arc::default();
        for (asked, _asker) in questions(&turns, TURNS) {
            let panicking = move || {
                goes_on(&asked).unwrap();
                panic!("a bug of ours");
            };
            thread::scope(|scope| assert!(scope.spawn(panicking).join().is_err()));
        }
        assert_eq!(busy(&turns).len(), TURNS);
    }

    #[test]
    fn a_question_that_waits_for_its_turn_ends_with_its_asker() {
        let turns = Arc::default();
        let _busy = busy(&turns);
        let (asked, client) = Asked::on_own_thread(&turns);
        thread::scope(|scope| {
            let waits = scope.spawn(|| goes_on(&asked));
            while turns.n_waiting() == 0 {
                thread::yield_now();
            }
            drop(questions(&turns, 3));
            assert_eq!(turns.n_waiting(), 1, "others that go away change nothing");
            drop(client);
            assert!(matches!(waits.join().unwrap(), Err(QueryError::Abandoned)));
        });
    }

    #[test]
    fn a_question_whose_turn_does_not_come_says_what_helps() {
        let turns = Arc::default();
        let _busy = busy(&turns);
        let (asked, _asker) = Asked::on_own_thread(&turns);
        let own = asked.own_thread.as_ref().unwrap();
        let error = own.take_turn(clock::instant(), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("ask again later, or for less"), "{error}");
    }
}
