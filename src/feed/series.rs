//! What is written of an edge, in whatever form: each series with its number or its native histogram.

use crate::query::promql::catalogue::{Metric, Subject};
use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::labels::{BUCKET_BOUND, Labels, METRIC_NAME};
use crate::query::promql::series::Millis;
use crate::query::promql::totals::{Total, Totals};

use super::{Histograms, STEP};

/// One sample of a series.
#[derive(Debug)]
pub(super) struct Series<'a> {
    /// All of them, `__name__` and `le` too.
    pub(super) labels: Labels,
    /// Says what the family is.
    pub(super) metric: &'static Metric,
    pub(super) value: Value<'a>,
    /// Where a sample of 0 stands before its first one, without which nobody would see that it grew.
    pub(super) zero_at: Option<Millis>,
    pub(super) exemplar: Option<&'a PromExemplar>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(f64),
    Native(&'a Total),
}

/// All series of an edge, one after the other: those of a large installation would take much memory at once.
pub(super) fn of_edge(totals: &Totals, histograms: Histograms) -> impl Iterator<Item = Series<'_>> {
    // Behind the edge before: the last sample of the process before may stand there. A receiver takes nothing that is old.
    let first_zero = totals.before.max(totals.until - STEP) + 1;
    totals.series.iter().flat_map(move |((subject, labels), total)| {
        let zero_at = (total.began == totals.before).then_some(first_zero);
        of_total(*subject, labels, total, zero_at, histograms)
    })
}

fn of_total<'a>(
    subject: Subject,
    labels: &Labels,
    total: &'a Total,
    zero_at: Option<Millis>,
    histograms: Histograms,
) -> Vec<Series<'a>> {
    let mut series = Vec::new();
    let mut put = |metric, name: &str, bound: &str, value, exemplar| {
        let labels = labels.clone().with(METRIC_NAME, name).with(BUCKET_BOUND, bound);
        series.push(Series { labels, metric, value, zero_at, exemplar });
    };
    let exemplar = total.exemplar.as_ref();
    if let Some(metric) = subject.counter() {
        put(metric, metric.name, "", number(total.count), exemplar);
    }
    if let Some(metric) = subject.failures() {
        put(metric, metric.name, "", number(total.failed), None);
    }
    let Some(metric) = subject.histogram() else { return series };
    if histograms != Histograms::Native {
        let bucket_name = format!("{}_bucket", metric.name);
        for bucket in total.buckets() {
            put(metric, &bucket_name, bucket.bound, number(bucket.count), bucket.exemplar);
        }
        put(metric, &format!("{}_count", metric.name), "", number(total.timed), None);
        put(metric, &format!("{}_sum", metric.name), "", Value::Number(total.sum_secs()), None);
    }
    if histograms != Histograms::Classic {
        put(metric, metric.name, "", Value::Native(total), exemplar);
    }
    series
}

fn number(count: u64) -> Value<'static> {
    #[expect(clippy::cast_precision_loss, reason = "the form knows doubles alone")]
    let number = count as f64;
    Value::Number(number)
}
