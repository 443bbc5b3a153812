//! Query parameters of protocols that are not ours: their clients add what they like, so what is unknown is passed over,
//! and an empty value is none.

use axum::http::Uri;

use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::params::BadParameter;

/// The parameters of one request that have a value, in the order sent.
#[derive(Debug)]
pub(super) struct OpenParams(Vec<(String, String)>);

impl OpenParams {
    pub(super) fn of(uri: &Uri) -> Result<Self, BadParameter> {
        let query: axum::extract::Query<Vec<(String, String)>> =
            axum::extract::Query::try_from_uri(uri).map_err(|error| BadParameter(error.to_string()))?;
        Ok(Self(query.0.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    /// Those of an address, and of a form in the body.
    pub(super) fn of_form(uri: &Uri, body: &[u8]) -> Result<Self, BadParameter> {
        let mut params = Self::of(uri)?;
        let of_body = form_urlencoded::parse(body).filter(|(_, value)| !value.is_empty());
        params.0.extend(of_body.map(|(name, value)| (name.into_owned(), value.into_owned())));
        Ok(params)
    }

    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A whole number from 1 to `max`, or the default.
    pub(super) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| BadParameter(format!("{name}={text} is not a whole number from 1 to {max}")))
    }

    /// A whole number of `unit` nanoseconds each.
    pub(super) fn nanos(&self, name: &str, unit: u64) -> Result<Option<u64>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let unit_name = if unit == MILLI { "milliseconds" } else { "microseconds" };
        let number: Option<u64> = text.parse().ok();
        let number = number.ok_or_else(|| BadParameter(format!("{name}={text} is not a number of {unit_name}")))?;
        Ok(Some(number.saturating_mul(unit)))
    }

    /// What `endTs` and `lookback` span, in milliseconds both; up to now, and a day.
    pub(super) fn looking_back(&self, now: UnixNanos) -> Result<TimeRange, BadParameter> {
        let end = self.nanos("endTs", MILLI)?.map_or(now, UnixNanos);
        let lookback = self.nanos("lookback", MILLI)?.map_or(DAY, DurationNanos);
        // Both ends are meant to be inside, as they are in Zipkin.
        let end = end.saturating_add(DurationNanos(MILLI));
        Ok(TimeRange { start: end.saturating_sub(lookback).saturating_sub(DurationNanos(MILLI)), end })
    }
}

/// Nanoseconds of a millisecond.
pub(super) const MILLI: u64 = 1_000_000;
/// Nanoseconds of a microsecond.
pub(super) const MICRO: u64 = 1_000;
/// How far back is looked when nothing else is said.
const DAY: DurationNanos = DurationNanos::from_secs(86_400);
