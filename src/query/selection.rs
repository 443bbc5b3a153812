//! Which series and spans a question counts, and in which groups.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::block::ServiceCount;
use crate::model::{Conventions, Family, Resource, SeriesKey, Span, SpanBatch, SpanKind, SpanStatus, UNKNOWN_SERVICE};
use crate::store::SeriesList;

use super::traceql::Field;

/// What a service's latency is split by, as far as histograms are kept for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// One peel dimension, by its key.
    Peel(String),
    /// Every peel dimension beside the others: a span is in one group of each.
    AnyPeel,
    /// Span name.
    SpanName,
    /// Span kind.
    Kind,
    /// Span status.
    Status,
    /// `service.namespace`.
    Namespace,
}

/// The label of a group: key, and value unless it is the group of the spans without one.
pub type GroupLabel = (String, Option<String>);

/// Which spans count.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// `service.name`.
    pub(super) service: String,
    /// `service.namespace`; `None` takes every namespace together.
    pub(super) namespace: Option<String>,
    /// Which of its spans.
    pub(super) spans: SpansWanted,
    pub(super) by: Option<Grouping>,
}

/// Which spans of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpansWanted {
    /// Those that make its latency.
    #[default]
    Entries,
    /// Those of one kind.
    Kind(SpanKind),
    /// All.
    All,
}

impl SpansWanted {
    pub(super) fn takes(self, key: &SeriesKey<'_>) -> bool {
        match self {
            Self::Entries => key.entry,
            Self::Kind(kind) => key.kind == kind && key.family.is_none(),
            Self::All => key.family.is_none(),
        }
    }

    /// The same for a span of the service.
    pub(super) fn takes_span(self, batch: &SpanBatch, span: &Span, conventions: &Conventions) -> bool {
        match self {
            Self::Entries => conventions.is_service_entry(batch, span),
            Self::Kind(kind) => SpanKind::from(span.kind) == kind,
            Self::All => true,
        }
    }
}

/// Where a series or span counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Whether it is a part of the whole: families repeat what other series count.
    pub(super) whole: bool,
    /// Numbers of its groups.
    pub(super) groups: &'a [u32],
}

/// A series that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// In its list.
    pub(super) number: u32,
    whole: bool,
    groups: Vec<u32>,
}

impl Taken {
    pub(super) fn target(&self) -> Target<'_> {
        Target { whole: self.whole, groups: &self.groups }
    }
}

/// Groups as they come.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    pub(super) labels: Vec<GroupLabel>,
    numbers: HashMap<GroupLabel, u32>,
}

impl Groups {
    /// Whether a series is in the group of this label.
    pub(super) fn has(&self, label: &GroupLabel, taken: &Taken) -> bool {
        taken.groups.iter().any(|number| self.labels.get(*number as usize) == Some(label))
    }

    fn number(&mut self, key: &str, value: &str) -> u32 {
        let label = (key.to_owned(), Some(value.to_owned()));
        let next = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(label).or_insert_with_key(|label| {
            self.labels.push(label.clone());
            next
        })
    }
}

impl Selection {
    pub(super) fn names(&self, namespace: &str, service: &str) -> bool {
        self.service == service && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    }

    /// The same for names as a batch holds them: valid UTF-8, empty when missing.
    fn names_bytes(&self, namespace: &[u8], service: &[u8]) -> bool {
        let service = if service.is_empty() { UNKNOWN_SERVICE.as_bytes() } else { service };
        self.service.as_bytes() == service
            && self.namespace.as_ref().is_none_or(|wanted| wanted.as_bytes() == namespace)
    }

    /// Whether each scope of a batch belongs to the service.
    pub(super) fn scopes_of_service(&self, batch: &SpanBatch) -> Vec<bool> {
        let resources = batch.scopes.iter().map(|scope| batch.resources.get(scope.resource as usize));
        let names = |resource: Option<&Resource>| {
            let resource = resource.copied().unwrap_or_default();
            self.names_bytes(batch.text(resource.namespace), batch.text(resource.service))
        };
        resources.map(names).collect()
    }

    pub(super) fn among(&self, services: &[ServiceCount]) -> bool {
        services.iter().any(|count| self.names(&count.namespace, &count.service))
    }

    /// Where a series counts; `None` when it does not.
    fn take(&self, number: u32, key: &SeriesKey<'_>, groups: &mut Groups) -> Option<Taken> {
        if !self.spans.takes(key) || !self.names(&key.namespace, &key.service) {
            return None;
        }
        let by = self.by.as_ref();
        let groups: Vec<u32> = match &key.family {
            None => {
                by.and_then(|by| by.of_series(key)).map(|(key, value)| groups.number(key, &value)).into_iter().collect()
            }
            Some(Family::Peel { attributes }) => {
                let wanted =
                    attributes.iter().filter(|(dimension, _)| by.is_some_and(|by| by.takes_dimension(dimension)));
                wanted.map(|(dimension, value)| groups.number(dimension, value)).collect()
            }
            Some(Family::Edge { .. } | Family::Untimed) => Vec::new(),
        };
        let whole = key.family.is_none();
        (whole || !groups.is_empty()).then_some(Taken { number, whole, groups })
    }

    /// Each series of a list that counts, ascending.
    pub(super) fn taken(&self, series: &SeriesList, groups: &mut Groups) -> Vec<Taken> {
        let taken = |number: u32| self.take(number, series.get(number as usize)?, groups);
        series.of_service(&self.service).filter_map(taken).collect()
    }

    /// The groups of an entry span.
    pub(super) fn groups_of(
        &self,
        batch: &SpanBatch,
        span: &Span,
        conventions: &Conventions,
        groups: &mut Groups,
    ) -> Vec<u32> {
        let Some(by) = &self.by else { return Vec::new() };
        let attributes = batch.resource(span).attributes;
        if matches!(by, Grouping::Peel(_) | Grouping::AnyPeel) {
            let values = conventions.peel_values(batch, attributes);
            let taken = values.filter(|(dimension, _)| by.takes_dimension(dimension));
            return taken.map(|(dimension, value)| groups.number(dimension, &value)).collect();
        }
        let key = SeriesKey::of(batch, span, conventions);
        by.of_series(&key).map(|(key, value)| groups.number(key, &value)).into_iter().collect()
    }

    /// Whether all spans of a resource are in the same groups, which the resource alone decides.
    pub(super) fn is_grouped_by_resource(&self) -> bool {
        matches!(self.by, Some(Grouping::Peel(_) | Grouping::AnyPeel))
    }
}

impl Grouping {
    /// What is written for it, and the label it gives.
    pub fn key(&self) -> &str {
        match self {
            Self::Peel(dimension) => dimension,
            Self::AnyPeel => "peel",
            Self::SpanName => "span.name",
            Self::Kind => "span.kind",
            Self::Status => "span.status",
            Self::Namespace => "service.namespace",
        }
    }

    /// The field that says the same; `None` for several at once.
    pub(super) fn field(&self) -> Option<Field> {
        let text = match self {
            Self::Peel(dimension) => format!("resource.{dimension:?}"),
            Self::AnyPeel => return None,
            Self::SpanName => "name".to_owned(),
            Self::Kind => "kind".to_owned(),
            Self::Status => "status".to_owned(),
            Self::Namespace => "resource.service.namespace".to_owned(),
        };
        text.parse().ok()
    }

    fn takes_dimension(&self, dimension: &str) -> bool {
        match self {
            Self::Peel(wanted) => wanted == dimension,
            Self::AnyPeel => true,
            Self::SpanName | Self::Kind | Self::Status | Self::Namespace => false,
        }
    }

    fn of_series<'a>(&'a self, key: &'a SeriesKey<'_>) -> Option<(&'a str, Cow<'a, str>)> {
        let value = match self {
            Self::Peel(_) | Self::AnyPeel => return None,
            Self::SpanName => Cow::Borrowed(&*key.span_name),
            Self::Kind => Cow::Borrowed(SpanKind::as_str(key.kind)),
            Self::Status => Cow::Borrowed(SpanStatus::as_str(key.status)),
            Self::Namespace => Cow::Borrowed(&*key.namespace),
        };
        Some((self.key(), value))
    }
}
