//! Parameters as Tempo reads them: unknown ones are passed over, and of several with one name the first counts.

use std::collections::HashMap;

use axum::http::Uri;

use crate::api::params::parse_time;
use crate::api::refusal::Refusal;
use crate::model::{DurationNanos, TimeRange, UnixNanos};

/// Why a parameter cannot be used, for a person.
pub(super) type Bad = String;

impl From<Bad> for Refusal {
    fn from(bad: Bad) -> Self {
        Self::invalid(&bad)
    }
}

#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self, Bad> {
        let query: axum::extract::Query<Vec<(String, String)>> =
            axum::extract::Query::try_from_uri(uri).map_err(|error| error.to_string())?;
        let mut parameters = HashMap::new();
        for (name, value) in query.0 {
            let _first = parameters.entry(name).or_insert(value);
        }
        Ok(Self(parameters))
    }

    /// Those of a message; zero and empty are what is left out.
    pub(super) fn given<const N: usize>(parameters: [(&str, String); N]) -> Self {
        Self(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// An empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A whole number in a range, or the default.
    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, Bad> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("invalid {name} {text:?}: it must be a whole number from {} to {}", range.start(), range.end())
        })
    }

    /// `start` and `end`; everything without them.
    pub(super) fn window(&self, now: UnixNanos) -> Result<TimeRange, Bad> {
        let (start, end) = match (self.get("start"), self.get("end")) {
            (None, None) => return Ok(TimeRange::ALL),
            (Some(start), Some(end)) => (start, end),
            _ => return Err("start and end go together: give both or none".to_owned()),
        };
        let range = TimeRange { start: read_time("start", start, now)?, end: read_time("end", end, now)? };
        if range.end <= range.start {
            return Err(format!("invalid time range: end {end} is not after start {start}"));
        }
        Ok(range)
    }

    pub(super) fn time(&self, name: &str, now: UnixNanos) -> Result<Option<UnixNanos>, Bad> {
        self.get(name).map(|text| read_time(name, text, now)).transpose()
    }

    /// Length of an interval: a duration, or a number of seconds; above zero.
    pub(super) fn step(&self) -> Result<Option<DurationNanos>, Bad> {
        let Some(text) = self.get("step") else { return Ok(None) };
        let secs = text.parse().ok().and_then(|secs| std::time::Duration::try_from_secs_f64(secs).ok());
        let step = secs.map(DurationNanos::from).or_else(|| duration(text)).filter(|step| step.0 != 0);
        let wrong = || format!("invalid step {text:?}: it must be a duration above zero, such as 30s, or seconds");
        step.map(Some).ok_or_else(wrong)
    }

    /// As Go writes it: `1h30m`, `1.5s`, `100ms`.
    pub(super) fn duration(&self, name: &str) -> Result<Option<DurationNanos>, Bad> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || format!("invalid {name} {text:?}: it must be a length of time, such as 100ms, 1.5s or 1h30m");
        duration(text).map(Some).ok_or_else(wrong)
    }
}

fn read_time(name: &str, text: &str, now: UnixNanos) -> Result<UnixNanos, Bad> {
    time(text, now).ok_or_else(|| {
        format!("invalid {name} {text:?}: it must be unix seconds, nanoseconds or RFC 3339 (2026-11-23T10:00:00Z)")
    })
}

/// Up to 10 digits are seconds, more are nanoseconds: Tempo knows no others.
fn time(text: &str, now: UnixNanos) -> Option<UnixNanos> {
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_integer && 10 < text.len() { text.parse().ok().map(UnixNanos) } else { parse_time(text, now) }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and the numbers have no sign"
)]
fn duration(text: &str) -> Option<DurationNanos> {
    let (mut rest, mut nanos) = (text, 0.0);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(unit_at);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, after) = behind.split_at(end);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (!text.is_empty()).then_some(DurationNanos(nanos.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        Parameters::of(&format!("/p?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn the_first_value_counts_and_an_empty_one_is_none() {
        let read = parameters("limit=3&limit=x&q=&other=1");
        assert_eq!((read.number("limit", 20, 1..=9), read.get("q"), read.get("tags")), (Ok(3), None, None));
        assert!(parameters("limit=0").number("limit", 20, 1..=9).unwrap_err().contains("from 1 to 9"));
        assert!(parameters("limit=ten").number("limit", 20, 1..=9).unwrap_err().contains("\"ten\""));
    }

    #[test]
    fn times_are_seconds_or_nanoseconds_and_come_in_pairs() {
        let window = |query: &str| parameters(query).window(UnixNanos(0));
        let range = |start, end| Ok(TimeRange { start: UnixNanos(start), end: UnixNanos(end) });
        assert_eq!(
            window("start=1700000000&end=1700000001"),
            range(1_700_000_000_000_000_000, 1_700_000_001_000_000_000)
        );
        assert_eq!(window("start=1700000000123&end=1700000000124"), range(1_700_000_000_123, 1_700_000_000_124));
        assert_eq!(window("start=0.5&end=1.25"), range(500_000_000, 1_250_000_000));
        assert_eq!(window(""), Ok(TimeRange::ALL));
        for bad in ["start=1", "end=1", "start=2&end=1", "start=2&end=2", "start=x&end=1"] {
            assert!(window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_step_is_a_duration_or_seconds_above_zero() {
        for (text, nanos) in [("15", 15_000_000_000), ("0.5", 500_000_000), ("1m30s", 90_000_000_000)] {
            assert_eq!(parameters(&format!("step={text}")).step(), Ok(Some(DurationNanos(nanos))), "{text}");
        }
        assert_eq!(parameters("step=").step(), Ok(None));
        for bad in ["0", "-5", "soon", "0s", "inf"] {
            assert!(parameters(&format!("step={bad}")).step().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, nanos) in [("100ms", 100_000_000), ("1h30m", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("7ns", 7)]
        {
            assert_eq!(duration(text), Some(DurationNanos(nanos)), "{text}");
        }
        for text in ["", "5", "ms", "5 s", "5d", "-1s", "1..5s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
