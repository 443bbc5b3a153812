//! Which traces have spans of a kind: the newest ones, with those spans.
//!
//! A scan of heads and columns says which traces have what the query needs, newest places first; what it finds in a trace is
//! read from the whole of it, wherever its spans lie. A trace starts no later than any of its spans, so once enough are known, only
//! spans newer than the oldest of those can lead to a better one: the scan goes on with a shorter window, which passes by
//! most blocks unread.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{Block, SpanParts};
use crate::clock;
use crate::model::{DurationNanos, SpanBatch, SpanId, TimeRange, TraceId, UnixNanos};
use crate::store::{OpenPartition, Partition, Snapshot};

use super::traceql::{Field, FieldValue, Need, RowSet, SpanQuery, TraceScan, TraceSpans};
use super::{ATTEMPTS, Coverage, Query, QueryError, coverage_of};

/// A search ends after this.
const WITHIN: Duration = Duration::from_secs(30);
/// Traces that have a part of what a query needs, some 50 bytes each.
pub(super) const PARTS_MAX: usize = 2_000_000;
/// Traces that are read together, once many had to be read.
const READ_AT_ONCE_MAX: usize = 4_096;
/// Spans of one answer, some hundred bytes each.
const SPANS_MAX: usize = 100_000;
/// What stands for the service of a root that is not stored, as Tempo writes it.
pub const ROOT_NOT_RECEIVED: &str = "<root span not yet received>";

/// What to search for.
#[derive(Clone, Debug)]
pub struct SearchQuestion {
    /// Which spans of which traces.
    pub query: SpanQuery,
    /// When the spans start. Others count as their relatives alone.
    pub range: TimeRange,
    /// What must be true of its trace.
    pub trace: TraceConditions,
    /// Traces in the answer.
    pub traces_max: usize,
    /// Spans shown of each set of a trace, the earliest; 0 shows all.
    pub spans_per_set_max: usize,
}

/// What must be true of a whole trace. The default is true of every one.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceConditions {
    /// It lasts at least so long.
    pub duration_min: Option<DurationNanos>,
    /// It lasts at most so long.
    pub duration_max: Option<DurationNanos>,
}

impl TraceConditions {
    fn hold(&self, duration: DurationNanos) -> bool {
        self.duration_min.is_none_or(|min| min <= duration) && self.duration_max.is_none_or(|max| duration <= max)
    }
}

/// The newest traces with such spans.
#[derive(Clone, Debug, Default)]
pub struct SearchAnswer {
    /// Newest start first. A trace with a span whose start is not set comes behind all others.
    pub traces: Vec<SearchTrace>,
    /// Spans of the blocks and heads that were looked at.
    pub inspected_spans: u64,
    /// Blocks that were looked at.
    pub inspected_blocks: u64,
    /// Places that were looked at: the spans in memory, and each partition.
    pub jobs: u64,
    /// What is missing.
    pub coverage: Coverage,
}

/// A trace that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchTrace {
    /// Its id.
    pub trace_id: TraceId,
    /// Service of its root; `ROOT_NOT_RECEIVED` when that is not stored.
    pub root_service: String,
    /// Name of its root; empty when that is not stored.
    pub root_name: String,
    /// Earliest start of its spans.
    pub start: UnixNanos,
    /// From there to the latest end.
    pub duration: DurationNanos,
    /// At least one.
    pub sets: Vec<SpanSet>,
    /// All of its spans by service.
    pub services: BTreeMap<String, ServiceSpans>,
}

/// Spans of a trace that match, together or as one of the groups of `by()`.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanSet {
    /// What they have in common: values of `by()` and of aggregates, by their text.
    pub attributes: Vec<(String, FieldValue)>,
    /// Spans that match, shown or not.
    pub matched: u64,
    /// Those that are shown, earliest first.
    pub spans: Vec<SearchSpan>,
}

/// A span that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSpan {
    /// Its id.
    pub span_id: SpanId,
    /// Its name.
    pub name: String,
    /// Its start.
    pub start: UnixNanos,
    /// How long it took; 0 when its clock ran backwards.
    pub duration: DurationNanos,
    /// What it has of the fields that the query asks of, by key without scope, each key once.
    pub attributes: Vec<(String, FieldValue)>,
}

/// Spans of one service in a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpans {
    /// All.
    pub spans: u64,
    /// Those with status ERROR.
    pub errors: u64,
}

/// How far a search has come.
#[derive(Clone, Debug)]
pub struct SearchProgress<'a> {
    /// Traces of the answer, the newest first, from its first one on: in what is left to look at, nothing starts after them.
    pub settled: Vec<&'a SearchTrace>,
    /// Spans that were looked at.
    pub inspected_spans: u64,
    /// Blocks that were looked at.
    pub inspected_blocks: u64,
    /// Places that were looked at; see `SearchAnswer::jobs`.
    pub jobs_done: u64,
    /// Places there are.
    pub jobs: u64,
}

/// Is told how far a search has come.
pub type SearchReport<'a> = &'a mut dyn FnMut(&SearchProgress<'_>);

impl Query {
    /// The newest traces in which the query finds something. Cost: the columns that its filters need of every block that can hold spans
    /// newer than the oldest trace found so far, and one `trace` look-up for each trace that has what the query needs, until
    /// enough are found.
    ///
    /// # Errors
    /// `Starting`, `Abandoned`; `TooLong` after 30 s, `TooManyTraces` when 2,000,000 have a part of what is needed.
    pub fn search(&self, question: &SearchQuestion) -> Result<SearchAnswer, QueryError> {
        self.search_with(question, &mut |_| {})
    }

    /// The same, and tells in front of each partition how far it is. When partitions were replaced while they were read, it
    /// begins anew; what was settled before stays true, and of the time before.
    ///
    /// # Errors
    /// As `search`.
    pub fn search_with(&self, question: &SearchQuestion, report: SearchReport<'_>) -> Result<SearchAnswer, QueryError> {
        let began = clock::instant();
        let mut answer = self.search_once(question, began, report)?;
        for _ in 1..ATTEMPTS {
            if !answer.coverage.is_outdated() {
                break;
            }
            answer = self.search_once(question, began, report)?;
        }
        Ok(answer)
    }

    fn search_once(
        &self,
        question: &SearchQuestion,
        began: std::time::Instant,
        report: SearchReport<'_>,
    ) -> Result<SearchAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut search = Search {
            query: self,
            question,
            snapshot: &snapshot,
            need: question.query.need(),
            read_of_spans: if question.query.looks_at_attributes() { SpanParts::All } else { SpanParts::Frame },
            shown: question.query.shown(),
            began,
            report,
            parts: HashMap::new(),
            found: BTreeMap::new(),
            looked_at: HashSet::new(),
            n_spans: 0,
            answer: SearchAnswer { coverage: coverage_of(&snapshot), ..SearchAnswer::default() },
        };
        if 0 < question.traces_max {
            search.in_heads()?;
            search.in_partitions()?;
        }
        let Search { found, mut answer, .. } = search;
        answer.traces = found.into_values().rev().collect();
        Ok(answer)
    }
}

/// The order of traces, best last: by the earliest start of a span, where one that is not set is 0.
type Rank = (UnixNanos, Reverse<TraceId>);

/// A search on its way.
struct Search<'a> {
    query: &'a Query,
    question: &'a SearchQuestion,
    snapshot: &'a Snapshot,
    need: Need,
    /// What it has to see of a span.
    read_of_spans: SpanParts,
    shown: Vec<&'a Field>,
    began: std::time::Instant,
    report: SearchReport<'a>,
    /// Which filters are met by traces that lack others yet.
    parts: HashMap<TraceId, u64>,
    /// At most as many as are wanted.
    found: BTreeMap<Rank, SearchTrace>,
    /// Traces that were read, found good or not.
    looked_at: HashSet<TraceId>,
    /// Spans in `found`.
    n_spans: usize,
    answer: SearchAnswer,
}

impl Search<'_> {
    /// The start of the oldest trace found, when no older one is wanted.
    fn floor(&self) -> Option<UnixNanos> {
        let (oldest, _) = self.found.first_key_value()?;
        (self.question.traces_max <= self.found.len()).then_some(oldest.0)
    }

    /// The spans that can lead to a trace that is wanted more than those found.
    fn scan(&self) -> TraceScan<'_> {
        let mut range = self.question.range;
        range.start = self.floor().map_or(range.start, |floor| floor.max(range.start));
        TraceScan { filters: self.need.filters(), range }
    }

    fn in_heads(&mut self) -> Result<(), QueryError> {
        let snapshot = self.snapshot;
        let mut candidates = HashMap::new();
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            self.may_go_on()?;
            self.scan().scan_batch(batch, &mut |trace, met, start| note(&mut candidates, trace, met, start));
        }
        self.answer.jobs += 1;
        self.answer.inspected_spans += snapshot.heads.iter().map(|head| head.spans).sum::<u64>();
        self.read(candidates)
    }

    /// The newest partition first, and its newest block.
    fn in_partitions(&mut self) -> Result<(), QueryError> {
        let snapshot = self.snapshot;
        let newest = |partition: &Partition| partition.manifest().map_or(UnixNanos(u64::MAX), |sealed| sealed.max_time);
        let mut partitions: Vec<_> = snapshot.partitions.iter().collect();
        partitions.sort_by_key(|(partition, _)| Reverse(newest(partition)));
        self.answer.jobs += partitions.len() as u64;
        for (jobs_done, (partition, visible)) in (1..).zip(partitions) {
            self.tell(jobs_done, newest(partition));
            if !self.may_be_in(partition) {
                continue;
            }
            match self.query.store()?.open_partition(partition) {
                Ok(open) => self.in_blocks(&open, *visible)?,
                Err(error) => {
                    let what = format!("partition {}", partition.name());
                    self.query.unreadable(&mut self.answer.coverage, &what, &error);
                }
            }
        }
        Ok(())
    }

    /// What is left starts no later than `newest`.
    fn tell(&mut self, jobs_done: u64, newest: UnixNanos) {
        // What had to be left out because it was replaced is found the next time, and may belong to any trace.
        let is_outdated = self.answer.coverage.is_outdated();
        let settled = self.found.iter().rev().take_while(|((start, _), _)| newest < *start && !is_outdated);
        (self.report)(&SearchProgress {
            settled: settled.map(|(_, trace)| trace).collect(),
            inspected_spans: self.answer.inspected_spans,
            inspected_blocks: self.answer.inspected_blocks,
            jobs_done,
            jobs: self.answer.jobs,
        });
    }

    fn may_be_in(&mut self, partition: &Partition) -> bool {
        let Some(sealed) = partition.manifest() else { return true };
        let scan = self.scan();
        if !scan.may_lie_between(sealed.min_time, sealed.max_time) || !scan.is_among(|| sealed.counted_services()) {
            return false;
        }
        if !sealed.left.is_empty() && scan.is_among(|| sealed.left.iter()) {
            let left = "spans of the window have left with their retention: only those of pinned traces are found";
            self.answer.coverage.missing(left.to_owned());
        }
        true
    }

    fn in_blocks(&mut self, open: &OpenPartition, visible: u64) -> Result<(), QueryError> {
        let mut blocks: Vec<(u64, Arc<Block>)> = Vec::new();
        for (block_no, block) in open.blocks(visible) {
            match block {
                Some(block) => blocks.push((block_no, block)),
                None => self.answer.coverage.missing(format!("block {block_no} is damaged")),
            }
        }
        blocks.sort_by_key(|(block_no, block)| Reverse((block.summary().max_start, *block_no)));
        for (block_no, block) in blocks {
            self.may_go_on()?;
            let scan = self.scan();
            if !scan.may_be_in(block.summary()) {
                continue;
            }
            let mut candidates = HashMap::new();
            let read =
                scan.scan_block(open, block_no, &mut |trace, met, start| note(&mut candidates, trace, met, start));
            if let Err(error) = read {
                self.query.unreadable(&mut self.answer.coverage, &format!("block {block_no}"), &error);
            }
            self.answer.inspected_blocks += 1;
            self.answer.inspected_spans += u64::from(block.summary().spans);
            self.read(candidates)?;
        }
        Ok(())
    }

    /// Those that have everything a query needs, by what was found here and before; the others are remembered.
    fn complete(&mut self, seen: HashMap<TraceId, Seen>) -> Result<Vec<Rank>, QueryError> {
        let mut complete = Vec::new();
        for (trace, Seen { met, start }) in seen {
            if self.need.holds(met) {
                complete.push((start, Reverse(trace)));
                continue;
            }
            let is_full = PARTS_MAX <= self.parts.len();
            let all = match self.parts.entry(trace) {
                Entry::Occupied(known) => {
                    let known = known.into_mut();
                    *known |= met;
                    *known
                }
                Entry::Vacant(_) if is_full => return Err(QueryError::TooManyTraces { traces_max: PARTS_MAX }),
                Entry::Vacant(new) => *new.insert(met),
            };
            if self.need.holds(all) {
                complete.push((start, Reverse(trace)));
            }
        }
        complete.sort_unstable_by_key(|rank| Reverse(*rank));
        Ok(complete)
    }

    /// Reads the traces, those that can be newest first, until the others cannot be wanted any more.
    fn read(&mut self, seen: HashMap<TraceId, Seen>) -> Result<(), QueryError> {
        let candidates = self.complete(seen)?;
        let (query, snapshot) = (self.query, self.snapshot);
        // As many as may be wanted at first, then more and more: most of them were nothing.
        let mut at_once = self.question.traces_max.clamp(1, READ_AT_ONCE_MAX);
        let mut rest = candidates.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(at_once.min(rest.len()));
            rest = later;
            at_once = (at_once * 2).min(READ_AT_ONCE_MAX);
            let floor = self.floor();
            let is_wanted = |latest: &UnixNanos| floor.is_none_or(|floor| floor <= *latest);
            let wanted = now.iter().take_while(|(latest, _)| is_wanted(latest)).map(|(_, Reverse(id))| *id);
            let ids: Vec<TraceId> = wanted.filter(|id| self.looked_at.insert(*id)).collect();
            if now.last().is_some_and(|(latest, _)| !is_wanted(latest)) {
                rest = &[];
            }
            self.may_go_on()?;
            query.each_trace_in(snapshot, &ids, self.read_of_spans, &mut |id, trace| {
                query.is_in_time(self.began, WITHIN)?;
                self.answer.coverage.also(trace.coverage.clone());
                self.take(id, &TraceSpans::new(trace.batch, trace.rows), trace.batch);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Keeps a trace when it is one of the best.
    fn take(&mut self, id: TraceId, trace: &TraceSpans<'_>, batch: &SpanBatch) {
        // The earliest span is the first, and one without a start comes before all.
        let start = trace.spans().first().map_or(UnixNanos(0), |span| span.start_time_unix_nano);
        let rank = (start, Reverse(id));
        let worst = self.found.first_key_value().map(|(worst, _)| *worst);
        if self.question.traces_max <= self.found.len() && worst.is_some_and(|worst| rank < worst) {
            return;
        }
        let Some(found) = self.found_in(id, trace, batch) else { return };
        self.n_spans += shown_of(&found);
        let _none = self.found.insert(rank, found);
        if self.question.traces_max < self.found.len() {
            let worst = self.found.pop_first();
            self.n_spans -= worst.map_or(0, |(_, worst)| shown_of(&worst));
        }
    }

    fn may_go_on(&self) -> Result<(), QueryError> {
        self.query.may_go_on(self.began, WITHIN)
    }

    /// What is said of a trace; `None` when it is none of those, or the query finds nothing in it after all.
    fn found_in(&mut self, trace_id: TraceId, trace: &TraceSpans<'_>, batch: &SpanBatch) -> Option<SearchTrace> {
        let (start, end) = trace.bounds();
        let duration = DurationNanos(end.0.saturating_sub(start.0));
        if !self.question.trace.hold(duration) {
            return None;
        }
        let starts = (0..).zip(trace.spans()).map(|(row, span)| (row, span.start_time_unix_nano));
        let within = starts.filter(|(_, start)| self.question.range.contains(*start)).map(|(row, _)| row);
        let sets = self.question.query.find(trace, within.collect());
        if sets.is_empty() {
            return None;
        }
        let mut shown_before = self.n_spans;
        let sets = sets.into_iter().map(|set| self.set(trace, batch, set, &mut shown_before)).collect();
        let root = trace.root().and_then(|row| trace.spans().get(row as usize));
        let mut services: BTreeMap<String, ServiceSpans> = BTreeMap::new();
        for span in trace.spans() {
            let counts = services.entry(batch.service_of(span).1.into_owned()).or_default();
            counts.spans += 1;
            counts.errors += u64::from(span.is_error());
        }
        Some(SearchTrace {
            trace_id,
            root_service: root
                .map_or_else(|| ROOT_NOT_RECEIVED.to_owned(), |root| batch.service_of(root).1.into_owned()),
            root_name: root.map_or_else(String::new, |root| batch.text_lossy(root.name).into_owned()),
            start,
            duration,
            sets,
            services,
        })
    }

    fn set(&mut self, trace: &TraceSpans<'_>, batch: &SpanBatch, set: RowSet, shown_before: &mut usize) -> SpanSet {
        let wanted = match self.question.spans_per_set_max {
            0 => set.rows.len(),
            most => most.min(set.rows.len()),
        };
        let shown = wanted.min(SPANS_MAX.saturating_sub(*shown_before));
        if shown < wanted {
            let reason = format!("more than {SPANS_MAX} spans match; of some traces fewer than asked for are shown");
            self.answer.coverage.missing(reason);
        }
        *shown_before += shown;
        let mut spans = Vec::with_capacity(shown);
        spans.extend(set.rows.iter().take(shown).filter_map(|row| span_of(trace, batch, *row, &self.shown)));
        let named = |value: Option<FieldValue>| value.map_or_else(|| FieldValue::String("nil".to_owned()), keyword);
        SpanSet {
            matched: set.rows.len() as u64,
            spans,
            attributes: set.attributes.into_iter().map(|(key, value)| (key, named(value))).collect(),
        }
    }
}

fn shown_of(trace: &SearchTrace) -> usize {
    trace.sets.iter().map(|set| set.spans.len()).sum()
}

/// What was seen of a trace in one place.
struct Seen {
    /// Filters that spans of it meet.
    met: u64,
    /// It starts no later than this.
    start: UnixNanos,
}

fn note(seen: &mut HashMap<TraceId, Seen>, trace: TraceId, met: u64, start: UnixNanos) -> ControlFlow<()> {
    let known = seen.entry(trace).or_insert(Seen { met, start });
    known.met |= met;
    known.start = start.min(known.start);
    ControlFlow::Continue(())
}

/// A keyword as a text: answers have no other type for it.
fn keyword(value: FieldValue) -> FieldValue {
    match value {
        keyword @ (FieldValue::Status(_) | FieldValue::Kind(_)) => FieldValue::String(keyword.to_string()),
        other => other,
    }
}

fn span_of(trace: &TraceSpans<'_>, batch: &SpanBatch, row: u32, shown: &[&Field]) -> Option<SearchSpan> {
    let span = trace.spans().get(row as usize)?;
    let mut attributes: Vec<(String, FieldValue)> = Vec::new();
    for field in shown {
        let Some(value) = trace.first_value(field, row) else { continue };
        if attributes.iter().all(|(known, _)| known != field.bare_name()) {
            attributes.push((field.bare_name().to_owned(), keyword(value)));
        }
    }
    Some(SearchSpan {
        span_id: span.span_id,
        name: batch.text_lossy(span.name).into_owned(),
        start: span.start_time_unix_nano,
        duration: span.latency().unwrap_or_default(),
        attributes,
    })
}
