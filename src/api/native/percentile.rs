//! The parameters of `/spandrel/v1/percentile`.

use crate::model::{Conventions, DurationNanos, SpanKind, TimeRange};
use crate::query::traceql::{Filter, TraceQlError};
use crate::query::{By, Grouping, PercentileQuestion, Quantile, QueryError, SpansWanted};

use super::super::Doors;
use super::super::params::{BadParameter, Params};
use super::Failure;

pub(super) const PARAMETERS: [&str; 12] =
    ["service", "namespace", "spans", "q", "start", "end", "exemplars", "where", "by", "top", "step", "vs"];

/// Without a window: the last quarter of an hour.
pub(super) const DEFAULT_START: &str = "-15m";
const DEFAULT_QUANTILES: &str = "0.5,0.9,0.99,0.999,1";
const EXEMPLARS: usize = 5;
pub(super) const EXEMPLARS_MAX: usize = 100;
/// Quantiles of one question.
const QUANTILES_MAX: usize = 100;
/// Groups shown unless `top` says otherwise.
const GROUPS: usize = 10;
const GROUPS_MAX: usize = 100;

pub(super) fn question(params: &Params, doors: &Doors) -> Result<PercentileQuestion, Failure> {
    let now = doors.query.now();
    let conventions = doors.query.conventions()?;
    let (spans, by) = (spans(params)?, params.get("by").map(|text| by(text, &conventions)).transpose()?);
    if spans != SpansWanted::Entries && by == Some(By::Kept(Grouping::AnyPeel)) {
        let text = "by=peel speaks of spans=entry alone; name one dimension, such as by=resource.host.name";
        return Err(BadParameter(text.to_owned()).into());
    }
    // Families are kept of entry spans alone: the others are counted one by one.
    let by = match by {
        Some(By::Kept(Grouping::Peel(dimension))) if spans != SpansWanted::Entries => {
            Some(field(&format!("resource.{dimension:?}"))?)
        }
        by => by,
    };
    Ok(PercentileQuestion {
        service: service(params)?,
        namespace: params.get("namespace").map(str::to_owned),
        spans,
        quantiles: quantiles(params.get("q").unwrap_or(DEFAULT_QUANTILES))?,
        range: TimeRange { start: params.time("start", now, DEFAULT_START)?, end: params.time("end", now, "now")? },
        exemplars_max: params.number("exemplars", EXEMPLARS, EXEMPLARS_MAX)?,
        filter: filter(params)?,
        by,
        groups_max: params.number("top", GROUPS, GROUPS_MAX)?,
        step: params.duration("step")?,
        versus: versus(params)?,
    })
}

pub(super) fn service(params: &Params) -> Result<String, BadParameter> {
    let missing = || BadParameter("parameter \"service\" is missing; /spandrel/v1/services lists them".to_owned());
    params.get("service").map(str::to_owned).ok_or_else(missing)
}

pub(super) fn quantiles(list: &str) -> Result<Vec<Quantile>, Failure> {
    let mut quantiles = Vec::new();
    for text in list.split(',') {
        let number: f64 = text.trim().parse().map_err(|_| {
            BadParameter(format!("q={text} is not a number; use quantiles from 0 to 1, such as q=0.5,0.99"))
        })?;
        quantiles.push(Quantile::try_from(number).map_err(QueryError::from)?);
    }
    if QUANTILES_MAX < quantiles.len() {
        return Err(BadParameter(format!("{} quantiles; at most {QUANTILES_MAX} at once", quantiles.len())).into());
    }
    Ok(quantiles)
}

/// `entry` for the service's latency, a kind, or `all`.
pub(super) fn spans(params: &Params) -> Result<SpansWanted, BadParameter> {
    const KINDS: [SpanKind; 5] =
        [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    match params.get("spans").unwrap_or("entry") {
        "entry" => Ok(SpansWanted::Entries),
        "all" => Ok(SpansWanted::All),
        text => KINDS.into_iter().find(|kind| kind.as_str() == text).map(SpansWanted::Kind).ok_or_else(|| {
            BadParameter(format!(
                "spans={text} is not known; use entry (the service's latency), all, internal, server, client, producer or \
                 consumer"
            ))
        }),
    }
}

/// `resource.cloud.availability_zone` or `cloud.availability_zone`, `peel`, `name`, `kind`, `status`, `service.namespace`; or
/// any field of TraceQL.
fn by(text: &str, conventions: &Conventions) -> Result<By, BadParameter> {
    let key = text.strip_prefix("resource.").unwrap_or(text);
    let kept = match text {
        "peel" => Some(Grouping::AnyPeel),
        "name" | "span:name" => Some(Grouping::SpanName),
        "kind" | "span:kind" => Some(Grouping::Kind),
        "status" | "span:status" => Some(Grouping::Status),
        "service.namespace" | "resource.service.namespace" => Some(Grouping::Namespace),
        _ => conventions.peel_dimensions.iter().find(|known| *known == key).cloned().map(Grouping::Peel),
    };
    kept.map_or_else(|| field(text), |kept| Ok(By::Kept(kept)))
}

fn field(text: &str) -> Result<By, BadParameter> {
    text.parse().map(By::Field).map_err(|error: TraceQlError| {
        BadParameter(format!(
            "by={text}: {error}; use name, kind, status, peel, or an attribute such as resource.cloud.region or \
             span.http.route"
        ))
    })
}

fn filter(params: &Params) -> Result<Option<Filter>, BadParameter> {
    let Some(text) = params.get("where") else { return Ok(None) };
    text.parse().map(Some).map_err(|error: TraceQlError| BadParameter(format!("where={text}: {error}")))
}

/// `vs=-1d`: how far back the other window lies.
fn versus(params: &Params) -> Result<Option<DurationNanos>, BadParameter> {
    let Some(text) = params.get("vs") else { return Ok(None) };
    let back = text.strip_prefix('-').and_then(|back| humantime::parse_duration(back).ok());
    let back = back.map(DurationNanos::from).filter(|back| 0 < back.0);
    let wrong = || BadParameter(format!("vs={text} is not a distance into the past, such as -1d or -7d"));
    back.map(Some).ok_or_else(wrong)
}
