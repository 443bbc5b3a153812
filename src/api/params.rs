//! Query parameters: read strictly, refused with what would be right. Times in every form people have at hand.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Uri;

use crate::model::{DurationNanos, UnixNanos};

/// A parameter that cannot be used; the text names it, the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadParameter(pub(super) String);

/// The parameters of one request, each at most once.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Refuses names that are not in `known`: an ignored filter would be a wrong answer.
    pub(super) fn strict(uri: &Uri, known: &[&str]) -> Result<Self, BadParameter> {
        let mut params = BTreeMap::new();
        let query: axum::extract::Query<Vec<(String, String)>> =
            axum::extract::Query::try_from_uri(uri).map_err(|error| BadParameter(error.to_string()))?;
        for (name, value) in query.0 {
            if !known.contains(&name.as_str()) {
                return Err(BadParameter(format!("unknown parameter {name:?}; known are {}", known.join(", "))));
            }
            if params.insert(name.clone(), value).is_some() {
                return Err(BadParameter(format!("parameter {name:?} is given twice")));
            }
        }
        Ok(Self(params))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number in a range, or the default.
    pub(super) fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number <= max);
        number.ok_or_else(|| BadParameter(format!("{name}={text} is not a whole number from 0 to {max}")))
    }

    /// A length of time above zero, such as 30s or 1h; a bare number is seconds.
    pub(super) fn duration(&self, name: &str) -> Result<Option<DurationNanos>, BadParameter> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let secs = text.parse().ok().map(Duration::from_secs);
        let duration = secs.or_else(|| humantime::parse_duration(text).ok()).filter(|duration| !duration.is_zero());
        let wrong = || BadParameter(format!("{name}={text} is not a length of time, such as 30s, 5m or 1h"));
        duration.map(|duration| Some(DurationNanos::from(duration))).ok_or_else(wrong)
    }

    /// `true` or `false`, or the default.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, BadParameter> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(BadParameter(format!("{name}={other} is neither true nor false"))),
        }
    }

    /// A time, or the default.
    pub(super) fn time(&self, name: &str, now: UnixNanos, default: &str) -> Result<UnixNanos, BadParameter> {
        let text = self.get(name).unwrap_or(default);
        parse_time(text, now).ok_or_else(|| {
            BadParameter(format!(
                "{name}={text} is not a time; use RFC 3339 (2026-11-23T10:00:00Z), unix seconds, milliseconds or \
                 nanoseconds, or a distance from now (-15m)"
            ))
        })
    }
}

/// RFC 3339; unix time in s (up to 10 digits, fractions allowed), ms (13), us (16) or ns (more); `now`; `-15m`.
pub fn parse_time(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    if text == "now" {
        return Some(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Some(now.saturating_sub(DurationNanos::from(humantime::parse_duration(ago).ok()?)));
    }
    if let Some((secs, fraction)) = text.split_once('.')
        && text.len() <= 20
        && secs.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        return secs.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos).map(UnixNanos);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().ok()?;
        let factor = match text.len() {
            0..=10 => 1_000_000_000,
            11..=13 => 1_000_000,
            14..=16 => 1_000,
            _ => 1,
        };
        return number.checked_mul(factor).map(UnixNanos);
    }
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_nanosecond()).ok().map(UnixNanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let now = UnixNanos(1_795_463_900_000_000_000);
        for (text, nanos) in [
            ("now", 1_795_463_900_000_000_000),
            ("-15m", 1_795_463_000_000_000_000),
            ("-1h 30m", 1_795_458_500_000_000_000),
            ("1795463000", 1_795_463_000_000_000_000),
            ("1795463000.5", 1_795_463_000_500_000_000),
            ("1795463000123", 1_795_463_000_123_000_000),
            ("1795463000123456789", 1_795_463_000_123_456_789),
            ("2026-11-23T23:23:20Z", 1_795_476_200_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text, now), Some(UnixNanos(nanos)), "{text}");
        }
        for text in ["", "yesterday", "-", "-15", "15m", "1e9", "99999999999999999999", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_time(text, now), None, "{text}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused_by_name() {
        let strict = |uri: &str| Params::strict(&uri.parse().unwrap(), &["q", "start"]).map(|_| ());
        assert_eq!(strict("/p?q=1&start=2"), Ok(()));
        assert!(strict("/p?wehre=x").unwrap_err().0.contains("\"wehre\""));
        assert!(strict("/p?q=1&q=2").unwrap_err().0.contains("twice"));
    }
}
