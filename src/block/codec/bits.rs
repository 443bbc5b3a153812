//! Runs of bits, most significant first.

use super::bytes::low_byte;

/// Collects bits into bytes; the last byte is filled with zeros.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u128,
    /// Bits in `pending`; in [0, 7] between calls.
    n_pending: u32,
}

impl BitWriter {
    /// Appends the low `width` bits, `width` in [0, 64]. Higher bits must be zero.
    pub(super) fn push(&mut self, value: u64, width: u32) {
        self.pending = (self.pending << width) | u128::from(value);
        self.n_pending += width;
        while 8 <= self.n_pending {
            self.n_pending -= 8;
            self.bytes.push(low_byte(low_u64(self.pending >> self.n_pending)));
        }
        self.pending &= 0x7f;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if 0 < self.n_pending {
            self.push(0, 8 - self.n_pending);
        }
        self.bytes
    }
}

/// The `width` bits from bit `at` on, `width` in [1, 64]; bits past the end are zero.
#[inline]
pub(super) fn read_bits(bytes: &[u8], at: usize, width: u32) -> u64 {
    let from = bytes.get(at / 8..).unwrap_or_default();
    // Most widths fit into one register, wherever in a byte they begin.
    if width <= 56
        && let Some(chunk) = from.first_chunk::<8>()
    {
        return (u64::from_be_bytes(*chunk) << (at % 8)) >> (64 - width);
    }
    let window = from.first_chunk::<16>().map_or_else(|| padded(from), |chunk| u128::from_be_bytes(*chunk));
    low_u64((window << (at % 8)) >> (128 - width))
}

fn padded(bytes: &[u8]) -> u128 {
    let mut window = [0; 16];
    for (to, from) in window.iter_mut().zip(bytes) {
        *to = *from;
    }
    u128::from_be_bytes(window)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low_u64(value: u128) -> u64 {
    value as u64
}
