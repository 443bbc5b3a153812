//! `spandrel query`: TraceQL metrics of a running server, drawn over time or listed.

use anyhow::Context as _;

use crate::clock::Clock;
use crate::query::traceql::{MetricsExpression, MetricsFunction, MetricsQuery};

use super::ask::{ServerArgs, style, width};
use super::print;
use super::render::{Unit, metrics_list, metrics_plot};
use super::view::MetricsView;

const EXAMPLES: &str = "Examples:
  spandrel query '{ } | rate() by(resource.service.name)'
  spandrel query '{ resource.service.name = \"checkout\" } | quantile_over_time(duration, 0.5, 0.99)' --last 6h --step 5m
  spandrel query '({ status = error } | rate()) / ({ } | rate()) * 100'
  spandrel query '{ } | count_over_time() by(name, status) | topk(5)' --instant
  spandrel query '{ kind = server } | compare({ duration > 2s })' --instant

docs/metrics.md says what there is.";

/// Flags of `query`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct QueryArgs {
    /// What is counted of which spans, in TraceQL: '{ status = error } | rate() by(name)'
    traceql: String,
    /// Window that ends now
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    last: String,
    /// Time between two points, such as 1m [default: about 240 points]
    #[arg(long, value_name = "DURATION", conflicts_with = "instant")]
    step: Option<String>,
    /// One number for the whole window, the largest first, instead of numbers over time
    #[arg(long)]
    instant: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: &QueryArgs) -> anyhow::Result<()> {
    let mut query = vec![("q", args.traceql.as_str()), ("since", &args.last)];
    query.extend(args.step.as_deref().map(|step| ("step", step)));
    let path = if args.instant { "/api/metrics/query" } else { "/api/metrics/query_range" };
    let json = args.server.client()?.get(path, &query)?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: MetricsView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    let unit = args.traceql.parse::<MetricsQuery>().map(|query| unit_of(&query.expression)).unwrap_or_default();
    if args.instant {
        return print(&metrics_list(&view, unit, style()));
    }
    print(&metrics_plot(&view, unit, Clock::system().now(), width(), style()))
}

/// What the numbers stand for, where arithmetic has not made something else of them.
fn unit_of(expression: &MetricsExpression) -> Unit {
    match expression {
        MetricsExpression::Number(_) | MetricsExpression::Arithmetic { .. } => Unit::Plain,
        MetricsExpression::Staged { of, .. } => unit_of(of),
        MetricsExpression::Spans(metrics) => match &metrics.function {
            MetricsFunction::Rate => Unit::PerSecond,
            function if function.counts() => Unit::Plain,
            function if function.is_of_duration() => Unit::Seconds,
            _ => Unit::Plain,
        },
    }
}
