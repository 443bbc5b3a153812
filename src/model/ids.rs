//! Trace and span ids: raw bytes inside, lower-case hex of full length outside (W3C Trace Context).

use std::fmt;

/// 16 bytes, not all zero in a stored span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes; all zero means "none" (the parent of a root).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// All zero: not an id of any trace.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }

    /// The last 8 bytes, for filters and hashing: 64-bit ids lead with zeros, and W3C Level 2 promises randomness
    /// only of the last 7 bytes.
    pub fn low_u64(self) -> u64 {
        self.0.last_chunk::<8>().map_or(0, |low| u64::from_be_bytes(*low))
    }

    /// Reads 1 to 32 hex digits of any case, left-padded with zeros, as Tempo's clients may send them.
    ///
    /// # Errors
    /// Names what was wrong: nothing there, too long, or not hex.
    pub fn parse_lenient(text: &str) -> Result<Self, ParseIdError> {
        if text.is_empty() {
            return Err(ParseIdError::Empty);
        }
        if 32 < text.len() {
            return Err(ParseIdError::TooLong { digits: text.len() });
        }
        if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ParseIdError::NotHex);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| ParseIdError::NotHex)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl SpanId {
    /// All zero: no span; as a parent it marks a root.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 8]
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Why a text is no trace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// No digits at all.
    #[error("a trace id has 1 to 32 hex digits, this one has none")]
    Empty,
    /// More than 32 digits.
    #[error("a trace id has 1 to 32 hex digits, this one has {digits}")]
    TooLong {
        /// Bytes of the text.
        digits: usize,
    },
    /// A character outside 0-9, a-f, A-F.
    #[error("a trace id has 1 to 32 hex digits (0-9, a-f) and nothing else")]
    NotHex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_left_padded_and_shown_in_full() {
        let id = TraceId::parse_lenient("Ab1").unwrap();
        assert_eq!(id.to_string(), "00000000000000000000000000000ab1");
        assert_eq!(id.low_u64(), 0xab1);
    }

    #[test]
    fn a_text_that_is_no_id_says_why() {
        for (text, why) in [
            ("", ParseIdError::Empty),
            ("0x12", ParseIdError::NotHex),
            ("+12", ParseIdError::NotHex),
            ("..%2f", ParseIdError::NotHex),
            ("000000000000000000000000000000001", ParseIdError::TooLong { digits: 33 }),
        ] {
            assert_eq!(TraceId::parse_lenient(text), Err(why), "{text}");
        }
    }
}
