//! Cutting texts to their limits without breaking what they mean.

use crate::limits::TRACE_STATE_BYTES_MAX;

/// Entries of a tracestate above this go first (W3C Trace Context 3.3.1.5).
const LONG_ENTRY_BYTES: usize = 128;

/// The longest length up to `max` at which `text` does not end inside a UTF-8 character.
pub(crate) fn floor_char_boundary(text: &[u8], max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    let is_boundary = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    // A character has at most 3 continuation bytes; bytes that are no UTF-8 are cut where they stand.
    (max.saturating_sub(3)..=max).rev().find(is_boundary).unwrap_or(max)
}

/// Shortens a tracestate to `limits::TRACE_STATE_BYTES_MAX`: entries above 128 bytes are dropped first, then any,
/// in both cases from the right and no more than needed. Cost: O(length).
pub(crate) fn shorten_trace_state(state: &[u8]) -> Vec<u8> {
    let is_long = |entry: &&[u8]| LONG_ENTRY_BYTES < entry.len();
    let mut total = state.len();
    let mut long_dropped = 0;
    for entry in state.rsplit(|byte| *byte == b',').filter(is_long) {
        if total <= TRACE_STATE_BYTES_MAX {
            break;
        }
        total = total.saturating_sub(entry.len() + 1);
        long_dropped += 1;
    }
    let mut long_kept = state.split(|byte| *byte == b',').filter(is_long).count() - long_dropped;
    let mut short = Vec::with_capacity(TRACE_STATE_BYTES_MAX);
    for entry in state.split(|byte| *byte == b',') {
        if is_long(&entry) {
            if long_kept == 0 {
                continue;
            }
            long_kept -= 1;
        }
        let separator = usize::from(!short.is_empty());
        if TRACE_STATE_BYTES_MAX < short.len() + separator + entry.len() {
            break;
        }
        if separator == 1 {
            short.push(b',');
        }
        short.extend_from_slice(entry);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "a\u{20ac}b".as_bytes();
        for (max, cut) in [(0, 0), (1, 1), (2, 1), (3, 1), (4, 4), (5, 5), (9, 5)] {
            assert_eq!(floor_char_boundary(text, max), cut, "{max}");
        }
        assert_eq!(floor_char_boundary(&[0x80; 9], 6), 6);
    }

    #[test]
    fn sd_06_long_entries_go_first_then_from_the_right() {
        let long = format!("long={}", "x".repeat(200));
        let short: Vec<String> = (0..390).map(|n| format!("k{n:03}=v{n:03}")).collect();
        let state = format!("{},{long},{}", short[..10].join(","), short[10..].join(","));
        assert_eq!(shorten_trace_state(state.as_bytes()), short.join(",").as_bytes());

        let state = ["abcdefg=1234567"; 300].join(",");
        let cut = shorten_trace_state(state.as_bytes());
        assert_eq!(cut, ["abcdefg=1234567"; 256].join(",").as_bytes());
    }
}
