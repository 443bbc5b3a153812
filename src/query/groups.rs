//! Which groups make the tail what it is.
//!
//! The tail is every span in the bucket of the tail quantile or above: of the highest quantile below 1 that is asked for. A
//! group adds to it by as many spans as it has there *beyond its share of all*: a group that is merely large has none, and of
//! a slow zone and the nodes in it the zone has the most. Ranking by the bare number of slow spans would name the largest.

use crate::latency::Quantile;

use super::percentile::{Counted, Rows};
use super::selection::GroupLabel;
use super::tally::Tally;

/// The tail when no quantile below 1 is asked for.
const TAIL: f64 = 0.99;

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
) -> (Vec<Group>, Option<Rest>) {
    let ungrouped = by.each_once.then(|| whole.without(groups.iter())).filter(|left| 0 < left.count());
    let tail_from = tail_quantile(&rows.question.quantiles).and_then(|tail| whole.at(tail));
    let Some(tail_from) = tail_from.map(|at| at.bucket) else { return (Vec::new(), None) };
    let tail_share = whole.count_from(tail_from) as f64 / whole.count() as f64;
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
    let shown = shown.collect();
    (shown, rest(&left, by, rows))
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

fn tail_quantile(asked: &[Quantile]) -> Option<Quantile> {
    let below_1 = asked.iter().filter(|quantile| quantile.get() < 1.0).max_by(|a, b| a.get().total_cmp(&b.get()));
    below_1.copied().or_else(|| Quantile::try_from(TAIL).ok())
}
