//! Everything that leads from a number to a trace: percentiles of a service, of its zones, of all its places, the heatmap, the
//! service graph; and from the trace to the ranks of its spans.

use std::collections::BTreeMap;

use spandrel::model::{DurationNanos, SpanBatch, SpanId, TimeRange, TraceId};
use spandrel::query::{
    By, CELL_EXEMPLARS_MAX, Counted, GraphQuestion, Grouping, HeatmapQuestion, PercentileQuestion, Quantile, Query,
    SpanRank, SpansWanted,
};

const ZONE: &str = "cloud.availability_zone";

/// How many exemplars each kind of answer showed.
pub(crate) type ShownBy = BTreeMap<&'static str, u64>;

/// A span that an answer shows: by what kind of answer.
pub(crate) struct Shown {
    pub(crate) by: &'static str,
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
}

pub(crate) fn quantiles(of: &[f64]) -> Vec<Quantile> {
    of.iter().map(|q| Quantile::try_from(*q).expect("a quantile")).collect()
}

/// Every exemplar that an answer about `window` shows. The parts of an answer add up to the whole.
pub(crate) fn crawl(query: &Query, services: &[String], window: TimeRange, each: &mut dyn FnMut(Shown)) {
    for service in services {
        percentiles(query, service, window, each);
        heatmaps(query, service, window, each);
    }
    let quantiles = quantiles(&[0.5, 1.0]);
    let question = GraphQuestion { range: window, service: None, quantiles, exemplars_max: 3 };
    for edge in query.graph(&question).expect("it is open").edges {
        edge.exemplars.iter().for_each(|one| each(Shown { by: "graph", trace: one.trace_id, span: one.span_id }));
    }
}

fn percentiles(query: &Query, service: &str, window: TimeRange, each: &mut dyn FnMut(Shown)) {
    let plain = PercentileQuestion::plain(service, quantiles(&[0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]), window, 4);
    let length = window.end.0.saturating_sub(window.start.0);
    // A step that cuts the window into a few, each of whole hours: roll-ups of any age are made of those.
    let step = DurationNanos::from_secs((length / 8).div_ceil(3_600_000_000_000) * 3_600);
    let questions = [
        ("percentile", PercentileQuestion { step: Some(step), ..plain.clone() }),
        (
            "zone",
            PercentileQuestion { by: Some(By::Kept(Grouping::Peel(ZONE.to_owned()))), groups_max: 2, ..plain.clone() },
        ),
        ("peel", PercentileQuestion { by: Some(By::Kept(Grouping::AnyPeel)), groups_max: 6, ..plain }),
    ];
    let mut counts = Vec::new();
    for (by, question) in questions {
        let answer = query.percentile(&question).expect("the service is known");
        let mut show = |counted: &Counted| {
            let exemplars = counted.quantiles.iter().flat_map(|row| &row.exemplars);
            exemplars.for_each(|one| each(Shown { by, trace: one.trace_id, span: one.span_id }));
        };
        show(&answer.whole);
        answer.groups.iter().for_each(|group| show(&group.counted));
        counts.push(answer.whole.count);
        if by == "percentile" {
            let in_steps: u64 = answer.steps.iter().map(|step| step.counted.count).sum();
            assert_eq!(in_steps, answer.whole.count, "{service} {window:?}: every span is in a step");
        }
        if by == "zone" {
            let in_groups: u64 = answer.groups.iter().map(|group| group.counted.count).sum();
            let in_rest = answer.rest.map_or(0, |rest| rest.counted.count);
            assert_eq!(in_groups + in_rest, answer.whole.count, "{service} {window:?}: every span is in a zone");
        }
    }
    assert!(counts.windows(2).all(|two| two[0] == two[1]), "{service} {window:?}: {counts:?}");
}

fn heatmaps(query: &Query, service: &str, range: TimeRange, each: &mut dyn FnMut(Shown)) {
    for (by, spans) in [("heatmap", SpansWanted::Entries), ("heatmap of all", SpansWanted::All)] {
        let (service, exemplars_max) = (service.to_owned(), CELL_EXEMPLARS_MAX);
        let question = HeatmapQuestion { service, namespace: None, spans, range, step: None, exemplars_max };
        let answer = query.heatmap(&question).expect("the service is known");
        let cells = || answer.columns.iter().flat_map(|(_, cells)| cells);
        assert_eq!(cells().map(|cell| cell.count).sum::<u64>(), answer.count, "{question:?}");
        let exemplars = cells().flat_map(|cell| &cell.exemplars);
        exemplars.for_each(|one| each(Shown { by, trace: one.trace_id, span: one.span_id }));
    }
}

/// All spans of a trace.
pub(crate) fn open(query: &Query, trace: TraceId) -> SpanBatch {
    let answer = query.trace(trace).expect("it is open");
    assert_eq!(answer.coverage.reasons, [""; 0], "{trace}");
    answer.batch
}

/// Each span has a rank among its kind, or is alone. (Of a pinned trace whose roll-ups are gone it is not counted itself.)
pub(crate) fn rank(query: &Query, trace: &SpanBatch) {
    let ranks = query.ranks(trace).expect("it is open");
    assert_eq!(ranks.ranks.len(), trace.spans.len());
    for (span, rank) in trace.spans.iter().zip(&ranks.ranks) {
        let is_sound = |rank: &SpanRank| 2 <= rank.count && rank.not_slower <= rank.count;
        assert!(rank.as_ref().is_none_or(is_sound), "{span:?} {rank:?}");
    }
}
