//! How slow each span of a trace was among its own kind: its rank in the latencies of its series at that time.

use std::collections::HashMap;

use crate::latency::Bucket;
use crate::limits::{RANK_WINDOW_SECS, SLOT_SECS, TRACE_SERIES_RANKED_MAX};
use crate::model::{DurationNanos, Span, SpanBatch, TimeRange, UnixNanos};

use super::series_window::{CountedLatency, SeriesName, SeriesWindow};
use super::{Coverage, Query, QueryError, coverage_of};

/// The ranks of a trace's spans.
#[derive(Clone, Debug, PartialEq)]
pub struct RankAnswer {
    /// One per row of the batch; `None` for a span without a latency, or of a series with fewer than two spans.
    pub ranks: Vec<Option<SpanRank>>,
    /// What was counted: the hour around the start of the trace, in whole slots.
    pub range: TimeRange,
    /// Says so when series are missing: more than `limits::TRACE_SERIES_RANKED_MAX`, or unreadable.
    pub coverage: Coverage,
}

/// Where one span stands among those of its series: same namespace, service, name and kind, whatever their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRank {
    /// Spans of the series in the window that have a latency in the bucket of this span's latency or below: those that
    /// were not slower, to 0.1 % or 511 ns. Itself among them when it started in the window.
    pub not_slower: u64, // <= count
    /// Spans of the series in the window.
    pub count: u64, // >= 2
}

impl SpanRank {
    /// The part of the spans that were not slower, in [0, 1]; 1 for all in the slowest bucket.
    pub fn percentile(&self) -> f64 {
        self.not_slower as f64 / self.count.max(1) as f64
    }
}

impl Query {
    /// The rank of every span of `trace` within its series. Cost: see `SeriesWindow::visit`, for an hour.
    ///
    /// # Errors
    /// `Starting`. What cannot be read is named in the coverage, and missing in the counts.
    pub fn ranks(&self, trace: &SpanBatch) -> Result<RankAnswer, QueryError> {
        let snapshot = self.store()?.snapshot();
        let mut coverage = coverage_of(&snapshot);
        let range = around(trace);
        let (names, mut tallies, series) = tallies(trace);
        if tallies.len() < names.len() {
            coverage.missing(format!("the trace has {} series, {} of them are ranked", names.len(), tallies.len()));
        }
        let window = SeriesWindow::of(names.get(..tallies.len()).unwrap_or(&names), range);
        window.visit(self, &snapshot, &mut coverage, &mut |counted| {
            let Some(tally) = tallies.get_mut(counted.series) else { return };
            match counted.latency {
                CountedLatency::Slot(histogram) => tally.add_all(histogram.entries()),
                CountedLatency::Span(latency) => tally.add_all(&[(Bucket::of(latency), 1)]),
            }
        })?;
        let ranks: Vec<HashMap<Bucket, SpanRank>> = tallies.iter().map(Tally::ranks).collect();
        let rank = |(span, series): (&Span, &usize)| ranks.get(*series)?.get(&Bucket::of(span.latency()?)).copied();
        Ok(RankAnswer { ranks: trace.spans.iter().zip(&series).map(rank).collect(), range, coverage })
    }
}

/// Half an hour before the slot of the trace's start, and half an hour from there on.
fn around(trace: &SpanBatch) -> TimeRange {
    let started = trace.spans.iter().filter(|span| span.latency().is_some()).map(|span| span.start_time_unix_nano);
    let slot = DurationNanos::from_secs(SLOT_SECS).0;
    let middle = UnixNanos(started.min().unwrap_or_default().0 / slot * slot);
    let half = DurationNanos::from_secs(RANK_WINDOW_SECS / 2);
    TimeRange { start: middle.saturating_sub(half), end: middle.saturating_add(half) }
}

/// The series of the trace, tallies for as many of them as are ranked, and which one each span belongs to.
fn tallies(trace: &SpanBatch) -> (Vec<SeriesName>, Vec<Tally>, Vec<usize>) {
    let (mut names, mut tallies): (Vec<SeriesName>, Vec<Tally>) = (Vec::new(), Vec::new());
    let mut numbers: HashMap<SeriesName, usize> = HashMap::new();
    let mut series = Vec::with_capacity(trace.spans.len());
    for span in &trace.spans {
        let name = SeriesName::of(trace, span);
        let number = numbers.get(&name).copied().unwrap_or_else(|| {
            names.push(name.clone());
            if tallies.len() < TRACE_SERIES_RANKED_MAX {
                tallies.push(Tally::default());
            }
            let _new = numbers.insert(name, names.len() - 1);
            names.len() - 1
        });
        if let (Some(tally), Some(latency)) = (tallies.get_mut(number), span.latency()) {
            tally.buckets.push((Bucket::of(latency), 0));
        }
        series.push(number);
    }
    for tally in &mut tallies {
        tally.buckets.sort_unstable();
        tally.buckets.dedup();
    }
    (names, tallies, series)
}

/// What one series counted, told apart only where spans of the trace lie: a few numbers instead of a histogram.
#[derive(Debug, Default)]
struct Tally {
    /// Buckets of the trace's spans, ascending, each with what lies in it or between it and the one before.
    buckets: Vec<(Bucket, u64)>,
    count: u64,
}

impl Tally {
    fn add_all(&mut self, entries: &[(Bucket, u64)]) {
        for (bucket, count) in entries {
            self.count = self.count.saturating_add(*count);
            let at = self.buckets.partition_point(|(known, _)| known < bucket);
            if let Some((_, spans)) = self.buckets.get_mut(at) {
                *spans = spans.saturating_add(*count);
            }
        }
    }

    /// The rank of a span in each of the buckets; none when there is nothing to compare with, or when the span itself is not
    /// counted: what is left of a pinned trace may be older than the roll-ups.
    fn ranks(&self) -> HashMap<Bucket, SpanRank> {
        if self.count < 2 {
            return HashMap::new();
        }
        let mut not_slower: u64 = 0;
        let ranks = self.buckets.iter().map(|(bucket, spans)| {
            not_slower = not_slower.saturating_add(*spans);
            (*bucket, SpanRank { not_slower, count: self.count })
        });
        ranks.filter(|(_, rank)| 0 < rank.not_slower).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_no_roll_up_counts_has_no_rank() {
        let bucket = |micros: u64| Bucket::of(DurationNanos(micros * 1_000));
        let mut tally = Tally { buckets: vec![(bucket(10), 0), (bucket(90), 0)], count: 0 };
        tally.add_all(&[(bucket(50), 3), (bucket(200), 1)]);
        let ranks = tally.ranks();
        assert_eq!(ranks.get(&bucket(10)), None, "what is slower is no comparison with itself left out");
        assert_eq!(ranks.get(&bucket(90)), Some(&SpanRank { not_slower: 3, count: 4 }));
    }
}
