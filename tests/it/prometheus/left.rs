//! Counters of spans that have left: their roll-ups have longer slots.

use spandrel::model::{DurationNanos, UnixNanos};
use spandrel::query::Query;
use spandrel::query::promql::series::Samples;
use spandrel::query::promql::{Instants, PromValue};
use spandrel::store::StoreConfig;

use super::sent::{SECOND, Sent};
use super::staged::{HOUR, START, Staged, span};
use crate::support::Random;

const MINUTE: i64 = 60_000;

/// Three hours of spans, of which roll-ups are left; and when each of them started.
fn days_after() -> (Staged, Vec<u64>) {
    let keep = |config: &mut StoreConfig| config.retention = Some(DurationNanos(HOUR));
    let (mut staged, mut random, mut starts) = (Staged::new(START, keep), Random(5), Vec::new());
    for hour in 0..3 {
        let span = |no| {
            let start = START + hour * HOUR + random.below(HOUR);
            starts.push(start);
            Sent { start, ..span(hour * 1_000 + no + 1, Some(SECOND / 10)) }
        };
        let spans: Vec<Sent> = (0..400).map(span).collect();
        staged.clock.set(UnixNanos(START + (hour + 1) * HOUR));
        staged.push(&spans);
        staged.block();
        staged.seal();
    }
    staged.leave(UnixNanos(START + 24 * HOUR));
    (staged, starts)
}

/// Values of the one series of a query, and whether something is said to be missing.
fn values(query: &Query, text: &str, instants: Instants) -> (Vec<f64>, bool) {
    let answer = query.promql(&text.parse().expect("it is PromQL"), instants).expect("an answer");
    let PromValue::Vector(series) = answer.value else { panic!("{text}: no vector") };
    let Some(Samples::Floats(values)) = series.first().map(|one| &one.samples) else { panic!("{text}: no numbers") };
    (values.iter().map(|value| value.unwrap_or(0.0)).collect(), !answer.warnings.is_empty())
}

#[test]
fn prom_5_6_counters_of_roll_ups_are_exact_at_their_edges_and_the_same_wherever_a_range_begins() {
    let (staged, starts) = days_after();
    let query = &staged.query;
    let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).expect("small");
    let (first, last) = (millis(START), millis(START + 3 * HOUR));
    let before = |at: i64| starts.iter().filter(|start| millis(**start) < at).count() as f64;
    let calls = "sum(traces_spanmetrics_calls_total)";
    let at = |at: i64| values(query, calls, Instants::Instant(at)).0;
    for begin in [first + 7 * MINUTE, first + 7 * MINUTE + 20_000, first + 61 * MINUTE + 30_000] {
        let step = 50_000;
        let (found, is_partial) = values(query, calls, Instants::Range { start: begin, end: last, step });
        assert!(is_partial, "slots are longer than ten seconds: a warning says so");
        assert!(found.is_sorted());
        for (no, value) in (0..).zip(&found) {
            let now = begin + no * step;
            let floor = now / MINUTE * MINUTE;
            let bounds = before(floor)..=before(if now == floor { now } else { floor + MINUTE });
            assert!(bounds.contains(value), "{value} at {now} of a range from {begin}: {bounds:?}");
            if no % 20 == 0 {
                assert_eq!(at(now), [*value], "an instant has what the range has");
            }
        }
    }
    let grown =
        values(query, "sum(increase(traces_spanmetrics_calls_total[10m]))", Instants::Instant(first + 70 * MINUTE));
    assert_eq!(grown.0, [before(first + 70 * MINUTE) - before(first + 60 * MINUTE)]);
    assert_eq!(at(last), [1_200.0]);
}
