//! Entry spans by where they ran: metrics of their own, because the families of peel dimensions stand beside the series of the
//! spans. A span counts in one series for each dimension that is offered: there is no cross product to sum over.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use super::catalogue::{Subject, status_text};
use super::counted::Counted;
use super::labels::Labels;
use crate::model::{Conventions, Family, MetricDimension, SeriesKey, Span, SpanBatch, SpanStatus};

/// Labels of one family that counts in several series: its number.
const NUMBER: &str = "";

/// The labels of the series that a family counts in, one for each of its attributes that is offered.
fn labels(key: &SeriesKey<'_>, offered: &[MetricDimension]) -> Vec<Labels> {
    let Some(Family::Peel { attributes }) = &key.family else { return Vec::new() };
    // Families know failed spans and others.
    let status = if key.status == SpanStatus::Error { SpanStatus::Error } else { SpanStatus::Unset };
    let all = Labels::of([("service", &*key.service), ("status_code", status_text(status))]);
    let value = |dimension: &MetricDimension| {
        let known = attributes.iter().find(|(attribute, _)| *attribute == *dimension.attribute);
        let value = known.map(|(_, value)| &**value).filter(|value| !value.is_empty())?;
        Some(all.clone().with(dimension.label.as_str(), value))
    };
    offered.iter().filter_map(value).collect()
}

/// The family of all attributes of a span, if it is an entry with a latency; else its own series, which has no such labels.
pub(super) fn family_of(batch: &SpanBatch, span: &Span, conventions: &Conventions) -> SeriesKey<'static> {
    let own = SeriesKey::of(batch, span, conventions).into_owned();
    if !counts(batch, span, conventions) {
        return own;
    }
    let values = conventions.peel_values(batch, batch.resource(span).attributes);
    let owned = |(key, value): (&str, Cow<'_, str>)| (Cow::Owned(key.to_owned()), Cow::Owned(value.into_owned()));
    SeriesKey { family: Some(Family::Peel { attributes: values.map(owned).collect() }), ..own }
}

/// Whether families count the span.
pub(super) fn counts(batch: &SpanBatch, span: &Span, conventions: &Conventions) -> bool {
    span.latency().is_some() && conventions.is_service_entry(batch, span)
}

/// Families on the way to their series: each is counted once, under labels of its own where it stands for several series.
pub(super) struct Apart<'a> {
    conventions: &'a Conventions,
    labels_of: &'a dyn Fn(Labels) -> Option<Labels>,
    several: RefCell<HashMap<Vec<Labels>, usize>>,
}

impl<'a> Apart<'a> {
    pub(super) fn new(conventions: &'a Conventions, labels_of: &'a dyn Fn(Labels) -> Option<Labels>) -> Self {
        Self { conventions, labels_of, several: RefCell::default() }
    }

    /// What a stored series is counted under.
    pub(super) fn name(&self, key: &SeriesKey<'_>) -> Option<Labels> {
        let all = labels(key, &self.conventions.metric_dimensions).into_iter();
        let mut wanted: Vec<Labels> = all.filter_map(self.labels_of).collect();
        if wanted.len() < 2 {
            return wanted.pop();
        }
        let mut several = self.several.borrow_mut();
        let next = several.len();
        let number = several.entry(wanted).or_insert(next);
        Some(Labels::of([(NUMBER, number.to_string())]))
    }

    /// The series themselves.
    pub(super) fn series(self, counted: Vec<Counted>) -> Vec<Counted> {
        let several = self.several.into_inner();
        if several.is_empty() {
            return counted;
        }
        let of_number: HashMap<String, Vec<Labels>> =
            several.into_iter().map(|(labels, number)| (number.to_string(), labels)).collect();
        Counted::joined(counted.into_iter().flat_map(|one| match of_number.get(one.labels.get(NUMBER)) {
            Some(labels) => labels.iter().map(|labels| Counted { labels: labels.clone(), ..one.clone() }).collect(),
            None => vec![one],
        }))
    }
}

impl Subject {
    /// Whether its metrics are there: those of entry spans are where a setting names dimensions.
    pub(super) fn is_offered(self, conventions: &Conventions) -> bool {
        self != Self::Entries || !conventions.metric_dimensions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::counted::tests::counted_once;
    use super::*;
    use crate::model::SpanKind;

    fn family(attributes: &[(&'static str, &'static str)], status: SpanStatus) -> SeriesKey<'static> {
        let attributes = attributes.iter().map(|(key, value)| (Cow::Borrowed(*key), Cow::Borrowed(*value)));
        SeriesKey {
            namespace: "".into(),
            service: "cart".into(),
            span_name: "".into(),
            kind: SpanKind::Internal,
            status,
            entry: true,
            family: Some(Family::Peel { attributes: attributes.collect() }),
        }
    }

    /// What each of these families, which count one span, adds to the series that are left of `zone` and `host`.
    fn counts(
        families: &[&[(&'static str, &'static str)]],
        labels_of: &dyn Fn(Labels) -> Option<Labels>,
    ) -> Vec<(String, u64)> {
        let metric_dimensions = ["zone", "host"].map(|key| MetricDimension::of(key.to_owned())).to_vec();
        let conventions = Conventions { metric_dimensions, ..Conventions::default() };
        let apart = Apart::new(&conventions, labels_of);
        let named = families.iter().filter_map(|attributes| apart.name(&family(attributes, SpanStatus::Ok)));
        let counted = Counted::joined(named.map(counted_once));
        let text = |one: Counted| (super::super::labels_text(&one.labels), one.total());
        let mut all: Vec<(String, u64)> = apart.series(counted).into_iter().map(text).collect();
        all.sort();
        all
    }

    const BOTH: &[(&str, &str)] = &[("zone", "a"), ("version", "1"), ("host", "h")];
    const ZONE: &[(&str, &str)] = &[("zone", "a")];

    #[test]
    fn a_family_counts_in_a_series_for_each_dimension_that_is_offered_whatever_shares_it() {
        let host = r#"{host="h", service="cart", status_code="STATUS_CODE_UNSET"}"#.to_owned();
        let zone = r#"{service="cart", status_code="STATUS_CODE_UNSET", zone="a"}"#.to_owned();
        let found = counts(&[BOTH, ZONE, BOTH, &[("version", "1")], &[("zone", "")]], &Some);
        assert_eq!(found, [(host, 2), (zone, 3)]);
    }

    #[test]
    fn a_group_without_a_place_counts_a_span_for_each_of_its_places_and_a_condition_on_one_counts_it_once() {
        let by_service = |labels: Labels| Some(labels.kept(|name| name == "service"));
        assert_eq!(counts(&[BOTH, ZONE], &by_service), [(r#"{service="cart"}"#.to_owned(), 3)]);
        let in_zone = |labels: Labels| Some(labels).filter(|labels| labels.get("zone") == "a").and_then(by_service);
        assert_eq!(counts(&[BOTH, ZONE], &in_zone), [(r#"{service="cart"}"#.to_owned(), 2)]);
    }
}
