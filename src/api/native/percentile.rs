//! The parameters of `/spandrel/v1/percentile`.

use crate::model::{Conventions, DurationNanos, TimeRange};
use crate::query::{Grouping, PercentileQuestion, Quantile, QueryError};

use super::super::Doors;
use super::super::params::{BadParameter, Params};
use super::Failure;

pub(super) const PARAMETERS: [&str; 10] =
    ["service", "namespace", "q", "start", "end", "exemplars", "by", "top", "step", "vs"];

/// Without a window: the last quarter of an hour.
const DEFAULT_START: &str = "-15m";
const DEFAULT_QUANTILES: &str = "0.5,0.9,0.99,0.999,1";
const EXEMPLARS: usize = 5;
const EXEMPLARS_MAX: usize = 100;
/// Quantiles of one question.
const QUANTILES_MAX: usize = 100;
/// Groups shown unless `top` says otherwise.
const GROUPS: usize = 10;
const GROUPS_MAX: usize = 100;

pub(super) fn question(params: &Params, doors: &Doors) -> Result<PercentileQuestion, Failure> {
    let now = doors.query.now();
    let Some(service) = params.get("service") else {
        return Err(
            BadParameter("parameter \"service\" is missing; /spandrel/v1/services lists them".to_owned()).into()
        );
    };
    let conventions = doors.query.conventions()?;
    Ok(PercentileQuestion {
        service: service.to_owned(),
        namespace: params.get("namespace").map(str::to_owned),
        quantiles: quantiles(params.get("q").unwrap_or(DEFAULT_QUANTILES))?,
        range: TimeRange { start: params.time("start", now, DEFAULT_START)?, end: params.time("end", now, "now")? },
        exemplars_max: params.number("exemplars", EXEMPLARS, EXEMPLARS_MAX)?,
        by: params.get("by").map(|text| grouping(text, &conventions)).transpose()?,
        groups_max: params.number("top", GROUPS, GROUPS_MAX)?,
        step: params.duration("step")?,
        versus: versus(params)?,
    })
}

fn quantiles(list: &str) -> Result<Vec<Quantile>, Failure> {
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

/// `resource.cloud.availability_zone` or `cloud.availability_zone`, `peel`, `name`, `kind`, `status`, `service.namespace`.
fn grouping(text: &str, conventions: &Conventions) -> Result<Grouping, BadParameter> {
    let key = text.strip_prefix("resource.").unwrap_or(text);
    let grouping = match text {
        "peel" => Some(Grouping::AnyPeel),
        "name" | "span:name" => Some(Grouping::SpanName),
        "kind" | "span:kind" => Some(Grouping::Kind),
        "status" | "span:status" => Some(Grouping::Status),
        "service.namespace" | "resource.service.namespace" => Some(Grouping::Namespace),
        _ => conventions.peel_dimensions.iter().find(|known| *known == key).cloned().map(Grouping::Peel),
    };
    grouping.ok_or_else(|| {
        let known = conventions.peel_dimensions.join(", ");
        BadParameter(format!(
            "by={text} is not kept apart; use name, kind, status, service.namespace, peel, or one of {known}"
        ))
    })
}

/// `vs=-1d`: how far back the other window lies.
fn versus(params: &Params) -> Result<Option<DurationNanos>, BadParameter> {
    let Some(text) = params.get("vs") else { return Ok(None) };
    let back = text.strip_prefix('-').and_then(|back| humantime::parse_duration(back).ok());
    let back = back.map(DurationNanos::from).filter(|back| 0 < back.0);
    let wrong = || BadParameter(format!("vs={text} is not a distance into the past, such as -1d or -7d"));
    back.map(Some).ok_or_else(wrong)
}
