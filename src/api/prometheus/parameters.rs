//! Parameters as Prometheus reads them: seconds with fractions, or RFC 3339.

use crate::model::{DurationNanos, UnixNanos};
use crate::query::promql::series::Millis;
use crate::query::promql::step_of;

use super::super::open_params::OpenParams;
use super::super::params::BadParameter;

/// In milliseconds.
pub(in crate::api) fn millis(at: UnixNanos) -> Millis {
    Millis::try_from(at.0 / 1_000_000).unwrap_or(Millis::MAX)
}

/// A time; numbers are seconds, however large.
pub(super) fn time(params: &OpenParams, name: &str) -> Result<Option<Millis>, BadParameter> {
    // Further away than this nothing is, and twice as far is still a number.
    const FAR: f64 = 4e18;
    let Some(text) = params.get(name) else { return Ok(None) };
    let secs = text.parse::<f64>().ok().filter(|secs| !secs.is_nan());
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
    let secs = secs.map(|secs| (secs * 1e3).round().clamp(-FAR, FAR) as Millis);
    let found = secs.or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()));
    let wrong = || {
        BadParameter(format!(
            "invalid parameter \"{name}\": cannot parse {text:?} to a valid timestamp: unix seconds or RFC 3339"
        ))
    };
    found.map(Some).ok_or_else(wrong)
}

pub(super) fn required_time(params: &OpenParams, name: &str) -> Result<Millis, BadParameter> {
    let missing = || BadParameter(format!("invalid parameter \"{name}\": it is required, as unix seconds or RFC 3339"));
    time(params, name)?.ok_or_else(missing)
}

/// Above zero: seconds, or a length such as `1m30s`.
pub(super) fn step(params: &OpenParams) -> Result<Millis, BadParameter> {
    let text =
        params.get("step").ok_or_else(|| BadParameter("parameter 'step' is required, such as 60 or 1m".to_owned()))?;
    let wrong = || {
        BadParameter(format!(
            "invalid parameter \"step\": {text:?} is no positive number of seconds, nor a length such as 1m30s"
        ))
    };
    step_of(text).filter(|step| 0 < *step).ok_or_else(wrong)
}

/// 0 is no bound.
pub(super) fn limit(params: &OpenParams) -> Result<usize, BadParameter> {
    match params.get("limit").map(str::parse::<usize>) {
        None | Some(Ok(0)) => Ok(usize::MAX),
        Some(Ok(limit)) => Ok(limit),
        Some(Err(_)) => Err(BadParameter("invalid parameter \"limit\": it is no whole number from 0 on".to_owned())),
    }
}

/// `min_value` and `max_value`, in seconds as the values of exemplars are: an extension.
pub(super) fn latencies(params: &OpenParams) -> Result<(DurationNanos, DurationNanos), BadParameter> {
    let bound = |name: &str, default: u64| {
        let Some(text) = params.get(name) else { return Ok(DurationNanos(default)) };
        let secs = text.parse::<f64>().ok().filter(|secs| !secs.is_nan());
        let wrong = || BadParameter(format!("invalid parameter \"{name}\": {text:?} is no number of seconds"));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what is out of range is as far as goes"
        )]
        secs.map(|secs| DurationNanos((secs * 1e9).round() as u64)).ok_or_else(wrong)
    };
    Ok((bound("min_value", 0)?, bound("max_value", u64::MAX)?))
}
