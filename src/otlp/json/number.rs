//! JSON numbers, exactly.

/// Powers of ten that a number below 2^128 can have.
const EXPONENT_MAX: i64 = 40;

/// Whether `text` is a number by the grammar of JSON.
pub(crate) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = split_exponent(unsigned);
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// The integer that `text` means, also as `15e2` or `1.50e3`; `None` when it is no number, not whole or far too large.
pub(crate) fn integer(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    let (mantissa, exponent) = split_exponent(text.trim_start_matches('-'));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    if value == 0 {
        return Some(0);
    }
    let exponent: i64 = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
    let shift = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    if EXPONENT_MAX < shift.abs() {
        return None;
    }
    for _ in 0..shift {
        value = value.checked_mul(10)?;
    }
    for _ in shift..0 {
        if value % 10 != 0 {
            return None;
        }
        value /= 10;
    }
    Some(if text.starts_with('-') { -value } else { value })
}

/// The double that `text` means, `NaN` and the infinities included; `None` when it is none or too large.
pub(crate) fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        number if is_number(number) => number.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

fn split_exponent(text: &str) -> (&str, Option<&str>) {
    text.split_once(['e', 'E']).map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_56_integers_may_be_written_in_exponent_form() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1795435200000000000", Some(1_795_435_200_000_000_000)),
            ("1.7954352e18", Some(1_795_435_200_000_000_000)),
            ("15E+2", Some(1_500)),
            ("1500e-2", Some(15)),
            ("18446744073709551615", Some(u64::MAX.into())),
            ("-9223372036854775808", Some(i64::MIN.into())),
            ("0e999999999999999999999", Some(0)),
            ("1e400", None),
            ("15e-1", None),
            ("1.5", None),
            ("", None),
            ("-", None),
            ("01", None),
            ("1.", None),
            (".5", None),
            ("+1", None),
            ("0x10", None),
            ("1e", None),
            (" 1", None),
            ("abc", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
    }

    #[test]
    fn otlp_58_doubles_have_names_for_what_is_no_number() {
        assert!(double("NaN").is_some_and(f64::is_nan));
        assert_eq!(double("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(double("-0").map(f64::to_bits), Some((-0.0_f64).to_bits()));
        assert_eq!(double("5e-324"), Some(f64::from_bits(1)));
        for text in ["nan", "inf", "infinity", "1e400", "", "1_0"] {
            assert_eq!(double(text), None, "{text}");
        }
    }
}
