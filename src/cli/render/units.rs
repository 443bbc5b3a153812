//! Numbers as people read them.

use crate::model::{DurationNanos, UnixNanos};

/// Three significant digits and one unit (`530 us`, `812 ms`, `1.24 s`), from a minute on two units (`2m 05s`).
/// Rounds half up, so never shows 1000 of anything.
pub fn duration(duration: DurationNanos) -> String {
    let nanos = duration.0;
    if nanos < 1_000 {
        return format!("{nanos} ns");
    }
    for (unit, name) in [(1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")] {
        let limit = if name == "s" { 60 } else { 1_000 };
        if let Some(shown) = three_digits(nanos, unit, limit) {
            return format!("{shown} {name}");
        }
    }
    let seconds = nanos / 1_000_000_000 + u64::from(nanos % 1_000_000_000 >= 500_000_000);
    match seconds {
        0..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `value / unit` with three digits; `None` when that rounds to `limit` or more.
fn three_digits(value: u64, unit: u64, limit: u64) -> Option<String> {
    for (decimals, below) in [(2_usize, 10), (1, 100), (0, limit)] {
        let step = unit / [1, 10, 100].get(decimals)?;
        let rounded = value / step + u64::from(value % step >= step.div_ceil(2));
        let one = unit / step;
        if rounded < below.min(limit) * one {
            let fraction = rounded % one;
            return Some(if decimals == 0 {
                rounded.to_string()
            } else {
                format!("{}.{fraction:0decimals$}", rounded / one)
            });
        }
    }
    None
}

/// `512 B`, `1.50 KiB`, `47.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1_024.0;
    let mut names = ["KiB", "MiB", "GiB", "TiB", "PiB"].iter();
    // 1023.5 KiB would be shown as 1024 KiB.
    while scaled >= 1_023.5 && names.len() > 1 {
        scaled /= 1_024.0;
        let _smaller = names.next();
    }
    let unit = names.next().copied().unwrap_or("EiB");
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.decimals$} {unit}")
}

/// Three significant digits: `0.0123`, `4.50`, `812`, `1.24k`, `47.2M`; beyond that with an exponent.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !size.is_finite() || !(0.000_999_5..999.5e9).contains(&size) {
        return format!("{value:.2e}");
    }
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (unit, name) = units.into_iter().find(|(unit, _)| 0.9995 * unit <= size).unwrap_or((1.0, ""));
    let scaled = value / unit;
    let limits = [(0.009_995, 5), (0.099_95, 4), (0.999_5, 3), (9.995, 2), (99.95, 1)];
    let decimals = limits.into_iter().find(|(limit, _)| scaled.abs() < *limit).map_or(0, |(_, decimals)| decimals);
    format!("{scaled:.decimals$}{name}")
}

/// All digits, in groups of three: `48,211`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How long before `now`: `now`, `42s ago`, `2m ago`, `3h ago`, `5d ago`; `in 2m` for clocks that run ahead, and
/// `never` for a time that is not set. Cut, not rounded.
pub fn age(at: UnixNanos, now: UnixNanos) -> String {
    if at.is_unset() {
        return "never".to_owned();
    }
    let ahead = coarse(at.since(now));
    match (coarse(now.since(at)), ahead) {
        (_, Some(ahead)) => format!("in {ahead}"),
        (Some(ago), None) => format!("{ago} ago"),
        (None, None) => "now".to_owned(),
    }
}

/// The largest whole unit; `None` below a second.
pub fn coarse(duration: DurationNanos) -> Option<String> {
    let seconds = duration.0 / 1_000_000_000;
    match seconds {
        0 => None,
        1..60 => Some(format!("{seconds}s")),
        60..3_600 => Some(format!("{}m", seconds / 60)),
        3_600..86_400 => Some(format!("{}h", seconds / 3_600)),
        _ => Some(format!("{}d", seconds / 86_400)),
    }
}

/// Time of day in UTC, `12:03:55Z`, with the date when that is not the day of `now`: `2026-11-23 12:03:55Z`.
pub fn time(at: UnixNanos, now: UnixNanos) -> String {
    const DAY: u64 = 86_400 * 1_000_000_000;
    let format = if at.0 / DAY == now.0 / DAY { "%H:%M:%SZ" } else { "%Y-%m-%d %H:%M:%SZ" };
    // 64 bits of nanoseconds end in 2554, far within the library's range.
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

/// `p50`, `p99.9`, `max` for a quantile in `0..=1`.
pub fn quantile(q: f64) -> String {
    if q >= 1.0 {
        return "max".to_owned();
    }
    // 0.999 * 100 is 99.90000000000001.
    let percent = format!("{:.6}", q * 100.0);
    format!("p{}", percent.trim_end_matches('0').trim_end_matches('.'))
}

/// Where one value stands: `p97.3` when that part of all values is not above it, `max` when none is above. Cut to a
/// decimal, from `p99.90` on to two, so that only the largest is `max`.
pub fn rank(percentile: f64) -> String {
    if percentile >= 1.0 {
        return "max".to_owned();
    }
    let decimals = if percentile < 0.999 { 1 } else { 2 };
    let scale = if decimals == 1 { 1_000.0 } else { 10_000.0 };
    // 0.973 * 1000 is 972.9999999999999 for some neighbours of 0.973.
    let cut = (percentile.max(0.0) * scale + 1e-6).floor().min(scale - 1.0) / (scale / 100.0);
    format!("p{cut:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_never_1000() {
        for (nanos, shown) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (9_994, "9.99 us"),
            (9_995, "10.0 us"),
            (99_949, "99.9 us"),
            (99_950, "100 us"),
            (530_000, "530 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (812_401_223, "812 ms"),
            (999_999_999, "1.00 s"),
            (1_240_000_000, "1.24 s"),
            (59_949_999_999, "59.9 s"),
            (59_950_000_000, "1m 00s"),
            (125_000_000_000, "2m 05s"),
            (3_599_500_000_000, "1h 00m"),
            (7_500_000_000_000, "2h 05m"),
            (180_000_000_000_000, "2d 02h"),
            (u64::MAX, "213503d 23h"),
        ] {
            assert_eq!(duration(DurationNanos(nanos)), shown, "{nanos}");
        }
    }

    #[test]
    fn bytes_are_binary_and_never_1024() {
        for (number, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.50 KiB"),
            (1_048_064, "1.00 MiB"),
            (50_681_742_336, "47.2 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(number), shown, "{number}");
        }
    }

    #[test]
    fn counts_keep_all_digits() {
        for (number, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (48_211, "48,211"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), shown);
        }
    }

    #[test]
    fn numbers_have_three_digits_and_never_1000() {
        for (value, shown) in [
            (0.0, "0"),
            (0.001, "0.00100"),
            (0.012_34, "0.0123"),
            (0.9994, "0.999"),
            (0.9996, "1.00"),
            (1.0, "1.00"),
            (-4.5, "-4.50"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1_240.0, "1.24k"),
            (47.24e6, "47.2M"),
            (812e9, "812G"),
            (1e12, "1.00e12"),
            (1e-5, "1.00e-5"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(number(value), shown, "{value}");
        }
    }

    #[test]
    fn ages_are_cut_to_one_unit() {
        let now = UnixNanos(1_795_463_900_000_000_000);
        for (seconds, shown) in
            [(0, "now"), (1, "1s ago"), (59, "59s ago"), (119, "1m ago"), (3_600, "1h ago"), (200_000, "2d ago")]
        {
            assert_eq!(age(now.saturating_sub(DurationNanos::from_secs(seconds)), now), shown);
        }
        assert_eq!(age(now.saturating_add(DurationNanos::from_secs(130)), now), "in 2m");
        assert_eq!(age(UnixNanos(0), now), "never");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = UnixNanos(1_795_463_900_000_000_000);
        assert_eq!(time(UnixNanos(1_795_463_712_999_000_000), now), "19:55:12Z");
        assert_eq!(time(UnixNanos(1_795_363_712_000_000_000), now), "2026-11-22 16:08:32Z");
    }

    #[test]
    fn quantiles_are_named_as_people_say_them() {
        for (q, shown) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"), (1.0, "max"), (0.0, "p0")]
        {
            assert_eq!(quantile(q), shown);
        }
    }

    #[test]
    fn a_rank_is_cut_and_only_the_largest_is_the_max() {
        for (percentile, shown) in [
            (0.0, "p0.0"),
            (0.5, "p50.0"),
            (0.973, "p97.3"),
            (0.97399, "p97.3"),
            (0.29, "p29.0"),
            (0.9989, "p99.8"),
            (0.999, "p99.90"),
            (0.999_99, "p99.99"),
            (0.999_999_999_9, "p99.99"),
            (1.0, "max"),
        ] {
            assert_eq!(rank(percentile), shown, "{percentile}");
        }
    }
}
