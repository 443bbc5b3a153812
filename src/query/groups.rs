//! Which groups make the tail what it is.
//!
//! The tail is every span in the bucket of one quantile or above: of the highest below 1 that is asked for, or, where fewer
//! than `TAIL_SPANS_MIN` are there, of a lower one: a single slow span says nothing about the place it ran at. A
//! group adds to it by as many spans as it has there *beyond its share of all*: a group that is merely large has none, and of
//! a slow zone and the nodes in it the zone has the most. Ranking by the bare number of slow spans would name the largest.

use crate::latency::{Bucket, Quantile};
use crate::model::DurationNanos;

use super::percentile::{Counted, Rows};
use super::selection::GroupLabel;
use super::tally::Tally;

/// Spans that a tail should have.
const TAIL_SPANS_MIN: u64 = 30;
/// Tried behind the quantiles that are asked for.
const TAILS: [f64; 3] = [0.99, 0.9, 0.5];

/// What groups are ranked by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// It begins in the bucket of this quantile.
    pub quantile: Quantile,
    /// Shortest latency of that bucket.
    pub low: DurationNanos,
    /// Spans in it.
    pub count: u64,
}

/// One group of the answer.
#[derive(Clone, Debug)]
pub struct Group {
    /// Key and value; no value for the spans that have none.
    pub label: (String, Option<String>),
    /// What was counted.
    pub counted: Counted,
    /// How many of them are in the tail of the whole.
    pub tail_count: u64,
    /// How many would be, were the group like the whole.
    pub tail_expected: f64,
}

/// The groups that are not shown.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Their number.
    pub groups: usize,
    /// What was counted in them; no exemplars.
    pub counted: Counted,
}

/// What the groups are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split<'a> {
    /// Key of their labels.
    pub(super) key: &'a str,
    /// Whether each span is in at most one of them.
    pub(super) each_once: bool,
}

/// Groups in the order of what they add to the tail.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranking {
    pub(super) groups: Vec<Group>,
    pub(super) rest: Option<Rest>,
    pub(super) tail: Option<Tail>,
}

struct Ranked<'a> {
    label: (&'a str, Option<&'a GroupLabel>),
    tally: &'a Tally,
    tail_count: u64,
    tail_expected: f64,
}

/// The `groups_max` groups that add most to the tail, and what is left of the others.
pub(super) fn ranked(
    whole: &Tally,
    groups: &[Tally],
    labels: &[GroupLabel],
    by: Split<'_>,
    rows: &mut Rows<'_>,
) -> Ranking {
    let ungrouped = by.each_once.then(|| whole.without(groups.iter())).filter(|left| 0 < left.count());
    let Some((tail, tail_from)) = tail(whole, &rows.question.quantiles) else { return Ranking::default() };
    let tail_share = tail.count as f64 / whole.count() as f64;
    let rank = |label, tally: &'_ Tally| (label, tally.count_from(tail_from), tally.count() as f64 * tail_share);
    let named = labels.iter().zip(groups).map(|(label, tally)| (label.0.as_str(), Some(label), tally));
    let unnamed = ungrouped.iter().map(|tally| (by.key, None, tally));
    let mut all: Vec<Ranked<'_>> = named
        .chain(unnamed)
        .filter(|(.., tally)| 0 < tally.count())
        .map(|(key, label, tally)| {
            let (label, tail_count, tail_expected) = rank((key, label), tally);
            Ranked { label, tally, tail_count, tail_expected }
        })
        .collect();
    let excess = |one: &Ranked<'_>| one.tail_count as f64 - one.tail_expected;
    all.sort_by(|a, b| excess(b).total_cmp(&excess(a)).then_with(|| a.label.cmp(&b.label)));
    let left = all.split_off(rows.question.groups_max.min(all.len()));
    let shown = all.into_iter().map(|one| Group {
        label: (one.label.0.to_owned(), one.label.1.and_then(|label| label.1.clone())),
        counted: rows.counted(one.tally, one.label.1, one.label.1.is_none().then_some(one.label.0)),
        tail_count: one.tail_count,
        tail_expected: one.tail_expected,
    });
    Ranking { groups: shown.collect(), rest: rest(&left, by, rows), tail: Some(tail) }
}

/// `None` when everything is shown, or when groups overlap and have no sum.
fn rest(left: &[Ranked<'_>], by: Split<'_>, rows: &Rows<'_>) -> Option<Rest> {
    if left.is_empty() || !by.each_once {
        return None;
    }
    let mut sum = Tally::sparse();
    for one in left {
        sum.add_tally(one.tally);
    }
    Some(Rest { groups: left.len(), counted: rows.counted_only(&sum) })
}

/// `None` when nothing was counted.
fn tail(whole: &Tally, asked: &[Quantile]) -> Option<(Tail, Bucket)> {
    let mut quantiles: Vec<Quantile> = asked.iter().copied().filter(|quantile| quantile.get() < 1.0).collect();
    quantiles.sort_by(|a, b| b.get().total_cmp(&a.get()));
    let lowest = quantiles.last().map_or(1.0, |quantile| quantile.get());
    let others = TAILS.into_iter().filter(|tail| *tail < lowest).filter_map(|tail| Quantile::try_from(tail).ok());
    quantiles.extend(others);
    let tail = |quantile: &Quantile| {
        let bucket = whole.at(*quantile)?.bucket;
        Some((Tail { quantile: *quantile, low: bucket.low(), count: whole.count_from(bucket) }, bucket))
    };
    let mut tails = quantiles.iter().filter_map(tail);
    let highest = tails.next()?;
    Some(std::iter::once(highest).chain(tails).find(|(tail, _)| TAIL_SPANS_MIN <= tail.count).unwrap_or(highest))
}
