//! Numbers as LEB128, and a cursor over bytes that may be damaged.

use super::Damaged;

/// Appends `value`, seven bits a byte, the lowest first; the top bit says that more follow.
pub(super) fn put(out: &mut Vec<u8>, value: impl Into<u128>) {
    let mut rest: u128 = value.into();
    loop {
        let [.., low] = rest.to_be_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends the lowest `width` bytes of `value`, big-endian.
pub(super) fn put_fixed(out: &mut Vec<u8>, value: u32, width: u8) {
    out.extend(value.to_be_bytes().into_iter().skip(4 - usize::from(width.min(4))));
}

/// How many bytes `value` needs; none for 0.
pub(super) fn width_of(value: u32) -> u8 {
    (0..=4).find(|width| u64::from(value) >> (8 * width) == 0).unwrap_or(4)
}

/// What is left to read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged { what: "cut short" })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        let (byte, rest) = self.0.split_first().ok_or(Damaged { what: "cut short" })?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn u32_be(&mut self) -> Result<u32, Damaged> {
        self.fixed(4)
    }

    pub(super) fn fixed(&mut self, width: u8) -> Result<u32, Damaged> {
        let bytes = self.bytes(usize::from(width))?;
        Ok(bytes.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
    }

    /// A number of at most ten bytes: the common kind, kept apart from `u128` for speed.
    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Damaged> {
        // Most have one byte or two.
        match self.0 {
            [byte @ 0..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            [low, high @ 0..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*high) << 7 | u64::from(*low & 0x7f))
            }
            _ => self.long_u64(),
        }
    }

    /// The same where one, two and three bytes are equally likely: without a guess at how many, which would often be wrong.
    #[inline]
    pub(super) fn u64_of_any_length(&mut self) -> Result<u64, Damaged> {
        let Some(bytes) = self.0.first_chunk::<4>() else { return self.u64() };
        let word = u32::from_le_bytes(*bytes);
        let ends = !word & 0x8080_8080;
        if ends == 0 {
            return self.u64();
        }
        // The bits up to the end of the first byte that is an end.
        let own = word & (ends ^ (ends - 1));
        let value = (own & 0x7f) | (own >> 1 & 0x3f80) | (own >> 2 & 0x1f_c000) | (own >> 3 & 0xfe0_0000);
        let len = (ends.trailing_zeros() / 8 + 1) as usize;
        self.0 = self.0.get(len..).unwrap_or_default();
        Ok(u64::from(value))
    }

    fn long_u64(&mut self) -> Result<u64, Damaged> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(Damaged { what: "number too long" });
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged { what: "number too long" })
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.u64()?).map_err(|_| Damaged { what: "number too long" })
    }

    #[inline]
    pub(super) fn u128(&mut self) -> Result<u128, Damaged> {
        // As long as nine bytes it fits into half of it.
        let is_short = self.0.iter().take(9).any(|byte| *byte < 0x80);
        if is_short { self.u64().map(u128::from) } else { self.long_u128() }
    }

    fn long_u128(&mut self) -> Result<u128, Damaged> {
        let mut value = 0;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(Damaged { what: "number too long" });
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged { what: "number too long" })
    }
}
