//! Which traces have spans of a kind: the newest ones, with those spans.
//!
//! A scan of heads and columns says which traces to look at, newest places first; what is answered of a trace is read from
//! the whole of it, wherever its spans lie. A trace starts no later than any of its spans, so once enough are known, only
//! spans newer than the oldest of those can lead to a better one: the scan goes on with a shorter window, which passes by
//! most blocks unread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::clock;
use crate::model::{DurationNanos, SpanBatch, SpanId, TimeRange, TraceId, UnixNanos};
use crate::store::{OpenPartition, Partition, Snapshot};

use super::traceql::{Field, FieldValue, Filter, SpanScan};
use super::{ATTEMPTS, Coverage, Query, QueryError, coverage_of};

/// A search ends after this.
const WITHIN: Duration = Duration::from_secs(30);
/// Spans of one answer, some hundred bytes each.
const SPANS_MAX: usize = 100_000;
/// What stands for the service of a root that is not stored, as Tempo writes it.
pub const ROOT_NOT_RECEIVED: &str = "<root span not yet received>";

/// What to search for.
#[derive(Clone, Debug)]
pub struct SearchQuestion {
    /// What must be true of a span; `None` takes every span.
    pub filter: Option<Filter>,
    /// When it starts.
    pub range: TimeRange,
    /// What must be true of its trace.
    pub trace: TraceConditions,
    /// Traces in the answer.
    pub traces_max: usize,
    /// Matching spans shown of each trace, the earliest; 0 shows all.
    pub spans_per_trace_max: usize,
}

/// What must be true of a whole trace. The default is true of every one.
#[derive(Clone, Debug, Default)]
pub struct TraceConditions {
    /// It has a span of each of these, in the range or not.
    pub each: Vec<Filter>,
    /// It lasts at least so long.
    pub duration_min: Option<DurationNanos>,
    /// It lasts at most so long.
    pub duration_max: Option<DurationNanos>,
}

impl TraceConditions {
    fn hold(&self, batch: &SpanBatch, duration: DurationNanos) -> bool {
        let has = |filter: &Filter| (0..batch.spans.len()).any(|row| filter.matches(batch, row));
        self.duration_min.is_none_or(|min| min <= duration)
            && self.duration_max.is_none_or(|max| duration <= max)
            && self.each.iter().all(has)
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
    /// What it has of the fields that the filter asks of, by key without scope, each key once.
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

impl Query {
    /// The newest traces with matching spans. Cost: the columns that the filter needs of every block that can hold spans
    /// newer than the oldest trace found so far, and one `trace` look-up for each trace found and a few more.
    ///
    /// # Errors
    /// `Starting`; `TooLong` after 30 s.
    pub fn search(&self, question: &SearchQuestion) -> Result<SearchAnswer, QueryError> {
        let began = clock::instant();
        let mut answer = self.search_once(question, began)?;
        for _ in 1..ATTEMPTS {
            if !answer.coverage.is_outdated() {
                break;
            }
            answer = self.search_once(question, began)?;
        }
        Ok(answer)
    }

    fn search_once(&self, question: &SearchQuestion, began: std::time::Instant) -> Result<SearchAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut search = Search {
            query: self,
            question,
            snapshot: &snapshot,
            shown: shown_fields(question.filter.as_ref()),
            began,
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
    shown: Vec<&'a Field>,
    began: std::time::Instant,
    /// At most as many as are wanted.
    found: BTreeMap<Rank, SearchTrace>,
    /// Traces that were read, found good or not.
    looked_at: HashSet<TraceId>,
    /// Spans in `found`.
    n_spans: usize,
    answer: SearchAnswer,
}

impl Search<'_> {
    fn wanted(&self) -> SpanScan<'_> {
        SpanScan { filter: self.question.filter.as_ref(), range: self.question.range }
    }

    /// The start of the oldest trace found, when no older one is wanted.
    fn floor(&self) -> Option<UnixNanos> {
        let (oldest, _) = self.found.first_key_value()?;
        (self.question.traces_max <= self.found.len()).then_some(oldest.0)
    }

    /// The spans that can lead to a trace that is wanted more than those found.
    fn scan(&self) -> SpanScan<'_> {
        let mut scan = self.wanted();
        scan.range.start = self.floor().map_or(scan.range.start, |floor| floor.max(scan.range.start));
        scan
    }

    fn in_heads(&mut self) -> Result<(), QueryError> {
        let snapshot = self.snapshot;
        let mut candidates = HashMap::new();
        for batch in snapshot.heads.iter().flat_map(|head| &head.batches) {
            self.in_time()?;
            self.scan().scan_batch(batch, &mut |trace, start| note(&mut candidates, trace, start));
        }
        self.answer.inspected_spans += snapshot.heads.iter().map(|head| head.spans).sum::<u64>();
        self.read(candidates)
    }

    /// The newest partition first, and its newest block.
    fn in_partitions(&mut self) -> Result<(), QueryError> {
        let snapshot = self.snapshot;
        let newest = |partition: &Partition| partition.manifest().map_or(UnixNanos(u64::MAX), |sealed| sealed.max_time);
        let mut partitions: Vec<_> = snapshot.partitions.iter().collect();
        partitions.sort_by_key(|(partition, _)| Reverse(newest(partition)));
        for (partition, visible) in partitions {
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

    fn may_be_in(&mut self, partition: &Partition) -> bool {
        let Some(sealed) = partition.manifest() else { return true };
        let scan = self.scan();
        if !scan.may_lie_between(sealed.min_time, sealed.max_time) || !scan.is_among(sealed.counted_services()) {
            return false;
        }
        if !sealed.left.is_empty() && scan.is_among(&sealed.left) {
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
            self.in_time()?;
            let scan = self.scan();
            if !scan.may_be_in(block.summary()) {
                continue;
            }
            let mut candidates = HashMap::new();
            let read = scan.scan_block(open, block_no, &mut |trace, start| note(&mut candidates, trace, start));
            if let Err(error) = read {
                self.query.unreadable(&mut self.answer.coverage, &format!("block {block_no}"), &error);
            }
            self.answer.inspected_blocks += 1;
            self.answer.inspected_spans += u64::from(block.summary().spans);
            self.read(candidates)?;
        }
        Ok(())
    }

    /// Reads the traces, those that can be newest first, until the others cannot be wanted any more.
    fn read(&mut self, candidates: HashMap<TraceId, UnixNanos>) -> Result<(), QueryError> {
        let mut candidates: Vec<Rank> =
            candidates.into_iter().map(|(trace, latest)| (latest, Reverse(trace))).collect();
        candidates.sort_unstable_by_key(|rank| Reverse(*rank));
        for (latest, Reverse(id)) in candidates {
            if self.floor().is_some_and(|floor| latest < floor) {
                break;
            }
            if !self.looked_at.insert(id) {
                continue;
            }
            self.in_time()?;
            let trace = self.query.trace_in(self.snapshot, id)?;
            self.answer.coverage.also(trace.coverage);
            let Some(found) = self.found_in(id, &trace.batch) else { continue };
            // The earliest span is the first, and one without a start comes before all.
            let start = trace.batch.spans.first().map_or(UnixNanos(0), |span| span.start_time_unix_nano);
            self.n_spans += shown_of(&found);
            let _none = self.found.insert((start, Reverse(id)), found);
            if self.question.traces_max < self.found.len() {
                let worst = self.found.pop_first();
                self.n_spans -= worst.map_or(0, |(_, worst)| shown_of(&worst));
            }
        }
        Ok(())
    }

    fn in_time(&self) -> Result<(), QueryError> {
        self.query.may_go_on(self.began, WITHIN)
    }

    /// What is said of a trace; `None` when it is none of those, or no span of it matches after all: only the first of
    /// several copies counts.
    fn found_in(&mut self, trace_id: TraceId, batch: &SpanBatch) -> Option<SearchTrace> {
        let scan = self.wanted();
        let matching: Vec<usize> = (0..batch.spans.len()).filter(|row| scan.wants(batch, *row)).collect();
        let (start, end) = bounds_of(batch);
        let duration = DurationNanos(end.0.saturating_sub(start.0));
        if matching.is_empty() || !self.question.trace.hold(batch, duration) {
            return None;
        }
        let wanted = match self.question.spans_per_trace_max {
            0 => matching.len(),
            most => most.min(matching.len()),
        };
        let shown = wanted.min(SPANS_MAX - self.n_spans.min(SPANS_MAX));
        if shown < wanted {
            let reason = format!("more than {SPANS_MAX} spans match; of some traces fewer than asked for are shown");
            self.answer.coverage.missing(reason);
        }
        let spans = matching.iter().take(shown).filter_map(|row| span_of(batch, *row, &self.shown)).collect();
        let root = batch.spans.iter().find(|span| span.parent_span_id == SpanId::default());
        let mut services: BTreeMap<String, ServiceSpans> = BTreeMap::new();
        for span in &batch.spans {
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
            sets: vec![SpanSet { attributes: Vec::new(), matched: matching.len() as u64, spans }],
            services,
        })
    }
}

fn shown_of(trace: &SearchTrace) -> usize {
    trace.sets.iter().map(|set| set.spans.len()).sum()
}

/// Notes a trace, and that it starts no later than this.
fn note(candidates: &mut HashMap<TraceId, UnixNanos>, trace: TraceId, start: UnixNanos) -> ControlFlow<()> {
    let known = candidates.entry(trace).or_insert(start);
    *known = start.min(*known);
    ControlFlow::Continue(())
}

/// Earliest start and latest end or start, of those that are set.
fn bounds_of(batch: &SpanBatch) -> (UnixNanos, UnixNanos) {
    let starts = batch.spans.iter().map(|span| span.start_time_unix_nano).filter(|at| !at.is_unset());
    let ends = batch.spans.iter().map(|span| span.end_time_unix_nano.max(span.start_time_unix_nano));
    (starts.min().unwrap_or_default(), ends.max().unwrap_or_default())
}

fn span_of(batch: &SpanBatch, row: usize, shown: &[&Field]) -> Option<SearchSpan> {
    let span = batch.spans.get(row)?;
    let mut attributes: Vec<(String, FieldValue)> = Vec::new();
    for field in shown {
        let Some(value) = field.first_value(batch, row) else { continue };
        if attributes.iter().any(|(known, _)| known == field.bare_name()) {
            continue;
        }
        let value = match value {
            keyword @ (FieldValue::Status(_) | FieldValue::Kind(_)) => FieldValue::String(keyword.to_string()),
            other => other,
        };
        attributes.push((field.bare_name().to_owned(), value));
    }
    Some(SearchSpan {
        span_id: span.span_id,
        name: batch.text_lossy(span.name).into_owned(),
        start: span.start_time_unix_nano,
        duration: span.latency().unwrap_or_default(),
        attributes,
    })
}

/// The fields of a filter that are shown beside each span: those that are not shown anyway, each once.
fn shown_fields(filter: Option<&Filter>) -> Vec<&Field> {
    let mut fields: Vec<&Field> = Vec::new();
    for field in filter.map(Filter::fields).unwrap_or_default() {
        if !field.is_of_every_answer() && !fields.contains(&field) {
            fields.push(field);
        }
    }
    fields
}
