//! Reading protobuf fields: varints, tags, length-delimited pieces, groups. Knows no message of OTLP.
//!
//! Offsets are those of the whole source, also inside sub-messages, so a piece can be stored as it is.

use crate::limits::GROUP_DEPTH_MAX;
use crate::model::Text;

/// Highest legal field number.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are no protobuf message. `at` counts bytes from the start of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field claims more bytes than its message has.
    #[error("the field at byte {at} runs past the end of its message")]
    Truncated {
        /// Where reading went past the end.
        at: usize,
    },
    /// A varint of more than 10 bytes.
    #[error("the varint at byte {at} is longer than 10 bytes")]
    VarintTooLong {
        /// First byte of the varint.
        at: usize,
    },
    /// Field number 0 or above 2^29-1.
    #[error("the field at byte {at} has no legal field number")]
    FieldNumber {
        /// First byte of the tag.
        at: usize,
    },
    /// A wire type that does not exist or is not the one of a known field.
    #[error("field {field} at byte {at} has a wrong wire type")]
    WireType {
        /// Field number.
        field: u32,
        /// First byte of the tag.
        at: usize,
    },
    /// A group without its end, an end without its group, or more than `GROUP_DEPTH_MAX` inside each other.
    #[error("the group at byte {at} is unbalanced or nested too deep")]
    Group {
        /// Where the group went wrong.
        at: usize,
    },
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// In [1, 2^29-1].
    pub(crate) number: u32,
    /// First byte of the tag.
    pub(crate) start: usize,
    pub(crate) wire: Wire,
}

/// Value of a field as far as the wire tells.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    Varint(u64),
    Fixed64(u64),
    Bytes(Text),
    Fixed32(u32),
    /// Skipped, balanced.
    Group,
}

impl Field {
    /// The fault of a known field that came with another wire type.
    pub(crate) fn wrong_wire(self) -> Fault {
        Fault::WireType { field: self.number, at: self.start }
    }
}

/// Position in a message; copying it is a bookmark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    /// The source up to the end of this message.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a whole source.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the message in `piece` of `source`; empty when the piece lies outside.
    pub(crate) fn of(source: &'a [u8], piece: Text) -> Self {
        let at = piece.start as usize;
        match source.get(..at.saturating_add(piece.len as usize)) {
            Some(bytes) => Self { bytes, at },
            None => Self { bytes: &[], at: 0 },
        }
    }

    /// Offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field, `None` at the end of the message.
    pub(crate) fn field(&mut self) -> Result<Option<Field>, Fault> {
        let start = self.at;
        if start == self.bytes.len() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let wire = match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => Wire::Bytes(self.length_delimited()?),
            3 => {
                self.skip_group(number)?;
                Wire::Group
            }
            4 => return Err(Fault::Group { at: start }),
            5 => Wire::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(Fault::WireType { field: number, at: start }),
        };
        Ok(Some(Field { number, start, wire }))
    }

    fn tag(&mut self) -> Result<(u32, u64), Fault> {
        let at = self.at;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || FIELD_NUMBER_MAX < number {
            return Err(Fault::FieldNumber { at });
        }
        let number = u32::try_from(number).map_err(|_| Fault::FieldNumber { at })?;
        Ok((number, tag & 7))
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            Some(_) => self.long_varint(),
            None => Err(Fault::Truncated { at: self.at }),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut value = 0;
        for (n, byte) in rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            // Bits above the 64th are dropped, as most decoders do.
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                self.at += n + 1;
                return Ok(value);
            }
        }
        let at = self.at;
        Err(if rest.len() < VARINT_BYTES_MAX { Fault::Truncated { at } } else { Fault::VarintTooLong { at } })
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk = rest.first_chunk::<N>().ok_or(Fault::Truncated { at: self.at })?;
        self.at += N;
        Ok(*chunk)
    }

    fn length_delimited(&mut self) -> Result<Text, Fault> {
        let at = self.at;
        let len = self.varint()?;
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len).ok().filter(|len| *len <= left).ok_or(Fault::Truncated { at })?;
        let start = self.at;
        self.at += len;
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) => Ok(Text { start, len }),
            _ => Err(Fault::Truncated { at }),
        }
    }

    /// Skips to behind the end of group `number`, without recursion.
    fn skip_group(&mut self, number: u32) -> Result<(), Fault> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            let at = self.at;
            let (number, wire_type) = self.tag()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.fixed::<8>()?),
                2 => drop(self.length_delimited()?),
                3 if open.len() < GROUP_DEPTH_MAX => open.push(number),
                4 if number == innermost => drop(open.pop()),
                5 => drop(self.fixed::<4>()?),
                _ => return Err(Fault::Group { at }),
            }
        }
        Ok(())
    }
}

/// `int32`, `uint32` and enum fields keep the low 32 bits of their varint.
#[expect(clippy::cast_possible_truncation, reason = "what protobuf says about a varint too large for its field")]
pub(crate) fn low_u32(varint: u64) -> u32 {
    varint as u32
}

/// As `low_u32`, signed.
pub(crate) fn low_i32(varint: u64) -> i32 {
    low_u32(varint).cast_signed()
}
