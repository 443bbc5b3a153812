//! Percentiles over windows from 10 s to 30 days against an exact sort, on a manual clock: while all spans are there, while only
//! the newest are, and when roll-ups of ten minutes and of hours are all that is left.
//!
//! 900 questions by default; `SPANDREL_QUESTIONS=1000000 cargo test --release --test it months` for more.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use spandrel::clock::Clock;
use spandrel::latency::Resolution;
use spandrel::model::{DurationNanos, TimeRange, UnixNanos};
use spandrel::otlp::{DecodeOptions, decode};
use spandrel::query::{PercentileAnswer, PercentileQuestion, QuantileRow, Query};
use spandrel::store::{Store, StoreConfig};
use spandrel::telemetry::Counters;
use tempfile::TempDir;

use crate::crawl::quantiles;
use crate::quantiles::service_spans;
use crate::support::Random;

/// 2026-11-23T00:00:00Z
const START: u64 = 1_795_392_000_000_000_000;
const SLOT: u64 = 10_000_000_000;
const HOUR: u64 = 360 * SLOT;
const DAY: u64 = 24 * HOUR;
/// Days of spans, two to a partition; the days before `QUIET_DAY` and behind it have spans, itself it has none.
const DAYS: u64 = 40;
const QUIET_DAY: u64 = 21;
const SERVICES: [&str; 3] = ["cart", "checkout", "payment"];
/// Questions about one window.
const QUANTILES: usize = 20;

#[derive(Clone, Copy, Debug)]
struct Sent {
    start: u64,
    duration: u64,
    trace: u128,
    /// Number of its partition.
    partition: u64,
}

/// What a partition that was written answers from.
#[derive(Clone, Copy, Debug)]
struct Left {
    times: (u64, u64),
    /// Length of the shortest slots that are left; `None` while the spans are there.
    slot: Option<u64>,
}

struct Months {
    dir: TempDir,
    /// By service, in the order of their starts.
    sent: BTreeMap<&'static str, Vec<Sent>>,
    clock: Clock,
    open: Option<(Arc<Store>, Query)>,
    /// By partition number.
    left: BTreeMap<u64, Left>,
    random: Random,
}

fn open(dir: &Path, clock: &Clock, retention: Option<u64>) -> (Arc<Store>, Query) {
    let counters = Arc::new(Counters::default());
    let query = Query::new(clock.clone(), Arc::clone(&counters));
    let config = StoreConfig {
        retention: retention.map(DurationNanos),
        rollup_retention: Some(DurationNanos(400 * DAY)),
        remnants_merged_at_once: 3,
        ..StoreConfig::keeping_all(dir)
    };
    let store = Arc::new(Store::open(config, clock.clone(), counters).expect("it opens"));
    query.attach(Arc::clone(&store));
    (store, query)
}

fn span(sent: &Sent) -> Span {
    Span {
        trace_id: sent.trace.to_be_bytes().to_vec(),
        span_id: (sent.trace as u64).to_be_bytes().to_vec(),
        name: format!("call {}", sent.trace % 3),
        kind: 2,
        start_time_unix_nano: sent.start,
        end_time_unix_nano: sent.start + sent.duration,
        ..Span::default()
    }
}

impl Months {
    fn new(spans_per_partition: u64) -> Self {
        let (dir, clock) = (tempfile::tempdir().expect("a directory"), Clock::manual(UnixNanos(START)));
        let open = Some(open(dir.path(), &clock, None));
        let (sent, left, random) = (BTreeMap::new(), BTreeMap::new(), Random(19));
        let mut months = Self { dir, sent, clock, open, left, random };
        let (mut late, mut sequence) = (Vec::new(), 1);
        for no in 0..DAYS / 2 {
            let spans = months.two_days(no, spans_per_partition, &mut late);
            months.write(spans, &mut sequence);
        }
        months.sent.values_mut().for_each(|sent| sent.sort_unstable_by_key(|one| one.start));
        months.look();
        months
    }

    fn store(&self) -> &Arc<Store> {
        &self.open.as_ref().expect("it is open").0
    }

    fn query(&self) -> &Query {
        &self.open.as_ref().expect("it is open").1
    }

    /// One span in ten comes two days late, into the next partition.
    fn two_days(&mut self, no: u64, n: u64, late: &mut Vec<(&'static str, Sent)>) -> Vec<(&'static str, Sent)> {
        let mut spans = std::mem::take(late);
        for of_partition in 0..n {
            let start = START + no * 2 * DAY + any_start(&mut self.random);
            // From a microsecond to half an hour, evenly over the octaves.
            let duration = (1 << (10 + self.random.below(30))) + self.random.below(1 << 20);
            let sent = Sent { start, duration, trace: u128::from(no * n + of_partition + 1), partition: no + 1 };
            if start / DAY == START / DAY + QUIET_DAY {
                continue;
            }
            let service = self.random.pick(&SERVICES);
            if self.random.one_in(10) {
                late.push((service, Sent { partition: no + 2, ..sent }));
            } else {
                spans.push((service, sent));
            }
        }
        self.clock.set(UnixNanos(START + (no + 1) * 2 * DAY));
        spans
    }

    /// Two blocks of a partition, which is sealed.
    fn write(&mut self, spans: Vec<(&'static str, Sent)>, sequence: &mut u64) {
        let partition = self.store().start_partition().expect("there is space");
        for half in spans.chunks(spans.len().div_ceil(2)) {
            for batch in half.chunks(500) {
                let resource_spans = SERVICES.map(|service| {
                    let own = batch.iter().filter(|(of, _)| *of == service);
                    service_spans(service, None, own.map(|(_, sent)| span(sent)).collect())
                });
                let request = ExportTraceServiceRequest { resource_spans: resource_spans.to_vec() };
                let decoded = decode(request.encode_to_vec(), &DecodeOptions::default()).expect("good spans");
                self.store().push([(*sequence, self.clock.now(), Arc::new(decoded.batch))]);
                *sequence += 1;
            }
            let frozen = self.store().freeze(&partition).expect("it holds spans");
            let _done = self.store().checkpoint(&frozen).expect("it can be written");
        }
        let _manifest = self.store().seal(&partition).expect("it verifies");
        for (service, sent) in spans {
            self.sent.entry(service).or_default().push(sent);
        }
    }

    /// What is left at a later time under a retention.
    fn go_on(&mut self, now: u64, retention: u64) {
        self.clock.set(UnixNanos(now));
        self.open = None;
        self.open = Some(open(self.dir.path(), &self.clock, Some(retention)));
        let names = |months: &Self| months.store().partitions().iter().map(|one| one.name()).collect::<Vec<_>>();
        loop {
            let before = names(self);
            let _dropped = self.store().enforce_retention().expect("it can be done");
            if before == names(self) {
                break;
            }
        }
        self.look();
    }

    fn look(&mut self) {
        self.left.clear();
        for partition in self.store().partitions() {
            let manifest = partition.manifest().expect("it is sealed");
            let slot = manifest.finest.filter(|_| !manifest.is_live()).map(|finest| finest.secs() * 1_000_000_000);
            let left = Left { times: (manifest.min_time.0, manifest.max_time.0), slot };
            self.left.extend((partition.seq()..=partition.last_seq()).map(|seq| (seq, left)));
        }
    }

    fn slots(&self) -> Vec<Option<u64>> {
        let mut slots: Vec<Option<u64>> =
            self.left.values().map(|left| left.slot.map(|slot| slot / 1_000_000_000)).collect();
        slots.dedup();
        slots
    }

    /// From 10 s to 30 days, each octave as often; about one in eight around a single span, or where there is none.
    fn window(&mut self) -> (&'static str, Range<u64>) {
        let service = self.random.pick(&SERVICES);
        let slots = DAYS * DAY / SLOT;
        match self.random.below(8) {
            0 => {
                let sent = &self.sent[service];
                let at = sent[self.random.below(sent.len() as u64) as usize].start / SLOT * SLOT;
                (service, at..at + SLOT)
            }
            1 => {
                let at = START + QUIET_DAY * DAY + self.random.below(12) * HOUR;
                (service, at..at + SLOT * (1 + self.random.below(360 * 11)))
            }
            _ => {
                let longest = (2_u64 << self.random.below(18)).min(30 * DAY / SLOT);
                let at = START + self.random.below(slots) * SLOT;
                (service, at..at + (1 + self.random.below(longest)) * SLOT)
            }
        }
    }

    /// Spans that an answer about the window counts; those in slots that it only touches count with the whole slot.
    fn counted(&self, service: &str, window: &Range<u64>) -> (Vec<Sent>, bool) {
        let sent = &self.sent[service];
        let at = |time: u64| sent.partition_point(|one| one.start < time);
        let (first, end) = (at(window.start.saturating_sub(HOUR)), at(window.end + HOUR));
        let counts = |one: &&Sent| {
            let left = self.left[&one.partition];
            let slot = left.slot.unwrap_or(SLOT);
            let begin = one.start / slot * slot;
            let meets = window.start <= left.times.1 && left.times.0 < window.end;
            meets && begin < window.end && window.start < begin + slot
        };
        let counted: Vec<Sent> = sent[first..end].iter().filter(counts).copied().collect();
        let is_exact = counted.iter().all(|one| window.contains(&one.start));
        (counted, is_exact)
    }

    /// One window, `QUANTILES` questions.
    fn ask(&mut self) {
        let (service, window) = self.window();
        let mut of = vec![0.0, 1.0, 0.999_999];
        of.extend((of.len()..QUANTILES).map(|_| self.random.below(1_000_001) as f64 / 1e6));
        let range = TimeRange { start: UnixNanos(window.start), end: UnixNanos(window.end) };
        let question = PercentileQuestion::plain(service, quantiles(&of), range, 1);
        let answer = self.query().percentile(&question).expect("the service is known");
        let (mut counted, is_exact) = self.counted(service, &window);
        let context = format!("{service} {window:?}, {} s long", (window.end - window.start) / 1_000_000_000);
        assert_eq!(answer.whole.count, counted.len() as u64, "{context}");
        let says_wider = answer.coverage.reasons.iter().any(|reason| reason.contains("windows are whole slots"));
        assert!(is_exact || says_wider, "{context}: {:?}", answer.coverage.reasons);
        assert_eq!(answer.coverage.reasons.len(), usize::from(says_wider), "{context}: {:?}", answer.coverage.reasons);
        counted.sort_unstable_by_key(|one| one.duration);
        self.check(&context, &answer, &counted);
    }

    fn check(&self, context: &str, answer: &PercentileAnswer, sorted: &[Sent]) {
        let rows = &answer.whole.quantiles;
        assert_eq!(rows.len(), if sorted.is_empty() { 0 } else { QUANTILES }, "{context}: no spans, no percentile");
        assert_eq!(answer.whole.sum_ns, sorted.iter().map(|one| u128::from(one.duration)).sum::<u128>(), "{context}");
        for row in rows {
            let q = row.quantile.get();
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let (expected, value) = (sorted[rank - 1].duration, row.value.0);
            assert_eq!(row.rank, rank as u64, "{context} {q}");
            assert!(row.low.0 <= expected && expected <= row.high.0 && value == row.high.0, "{context} {q}: {row:?}");
            assert!(value - expected <= (expected / 1_000).max(511), "{context} {q}: {value} for {expected}");
            self.check_exemplars(&format!("{context} {q}"), row, sorted, rank);
        }
    }

    /// While the spans are there the bucket has its trace, the slowest one in front; later one is shown only if there is one.
    fn check_exemplars(&self, context: &str, row: &QuantileRow, sorted: &[Sent], rank: usize) {
        let all_there = sorted.iter().all(|one| self.left[&one.partition].slot.is_none());
        assert!(!all_there || row.exemplars.len() == 1, "{context}: {row:?}");
        for exemplar in &row.exemplars {
            let is_it =
                |one: &Sent| one.trace.to_be_bytes() == exemplar.trace_id.0 && one.duration == exemplar.duration.0;
            assert!(sorted.iter().any(is_it), "{context}: a span of this window: {exemplar:?}");
            let in_bucket = row.low.0 <= exemplar.duration.0 && exemplar.duration.0 <= row.high.0;
            assert!(row.low.0 <= exemplar.duration.0 && exemplar.in_bucket == in_bucket, "{context}: {row:?}");
            assert!(!all_there || in_bucket, "{context}: {row:?}");
            if all_there && rank == sorted.len() {
                assert_eq!(exemplar.duration.0, sorted[rank - 1].duration, "{context}: the slowest itself");
            }
        }
    }
}

#[test]
fn rel_19_windows_of_ten_seconds_to_thirty_days_are_exact_at_every_age_of_their_spans() {
    let questions = std::env::var("SPANDREL_QUESTIONS").ok().map(|n| n.parse().expect("a number"));
    let mut months = Months::new(if questions.is_some() { 3_000 } else { 150 });
    let windows = questions.unwrap_or(900) / QUANTILES as u64 / 3;
    let secs = |resolution: Resolution| Some(resolution.secs());
    let (minute, ten, hour) = (secs(Resolution::Minute), secs(Resolution::TenMinutes), secs(Resolution::Hour));
    for (age, slots) in [(None, vec![None]), (Some(9), vec![ten, minute, None]), (Some(75), vec![hour, ten])] {
        if let Some(age) = age {
            months.go_on(START + (DAYS + age) * DAY, 24 * DAY);
        }
        assert_eq!(months.slots(), slots, "what is left, the oldest first");
        (0..windows).for_each(|_| months.ask());
    }
    println!("{} quantiles of {} windows", windows * 3 * QUANTILES as u64, windows * 3);
}

/// Half the starts lie in a few busy hours, the others anywhere: of most slots of 10 s there is one span or none.
fn any_start(random: &mut Random) -> u64 {
    if random.one_in(2) { random.below(2 * DAY) } else { random.pick(&[5, 6, 30]) * HOUR + random.below(HOUR) }
}
