//! A run of `u64`, in whichever of four forms is the smallest.
//!
//! ```text
//! 0 CONSTANT  value:varint
//! 1 PACKED    min:varint step:varint width:u8   n * width bits                     value = min + step * bits
//! 2 PLANES    min:varint step:varint planes:u8  blob: all highest bytes, .., all lowest bytes
//! 3 WIDTHS    min:varint step:varint            blob: n bit lengths, then n * (length - 1) bits (the leading 1 is implied)
//! ```
//! PLANES is for values that zstd can see through, WIDTHS for magnitudes spread over decades (durations), where one
//! width for all would pay for the largest.

use super::bits::{BitWriter, read_bits};
use super::bytes::{Malformed, Packer, Reader, Unpacker, low_byte, put_blob, put_varint};

const CONSTANT: u8 = 0;
const PACKED: u8 = 1;
const PLANES: u8 = 2;
const WIDTHS: u8 = 3;
/// Values of the WIDTHS form that are passed over, at most, to reach one.
const CHECKPOINT_VALUES: usize = 64;

/// Numbers as read: random access without unpacking all of them where the form allows it.
#[derive(Debug)]
pub(crate) enum Ints {
    Constant(u64),
    Packed { min: u64, step: u64, width: u8, bits: Vec<u8> },
    Planes { min: u64, step: u64, n: usize, planes: Vec<u8> },
    Widths(Widths),
    Values(Vec<u64>),
}

/// The WIDTHS form, with a place to start from every `CHECKPOINT_VALUES` values.
#[derive(Debug)]
pub(crate) struct Widths {
    min: u64,
    step: u64,
    lengths: Vec<u8>,
    bits: Vec<u8>,
    /// First bit of every `CHECKPOINT_VALUES`th value.
    checkpoints: Vec<usize>,
}

/// Appends `values`, of which there must be at least one.
pub(crate) fn put_ints(out: &mut Vec<u8>, values: &[u64], packer: &mut Packer) {
    let min = values.iter().copied().min().unwrap_or(0);
    let step = common_step(values, min);
    if step == 0 {
        out.push(CONSTANT);
        put_varint(out, min);
        return;
    }
    let scaled: Vec<u64> = if step == 1 {
        values.iter().map(|value| value - min).collect()
    } else {
        values.iter().map(|value| (value - min) / step).collect()
    };
    let width = bit_length(scaled.iter().fold(0, |all, value| all | value));
    let packed_bytes = (scaled.len() * usize::from(width)).div_ceil(8);
    let mut head = Vec::new();
    put_varint(&mut head, min);
    put_varint(&mut head, step);

    let planes = planes_form(&scaled, width, packer);
    let lengths: Vec<u8> = scaled.iter().map(|value| bit_length(*value)).collect();
    let widths_bytes = widths_bytes_about(&lengths);
    if widths_bytes < packed_bytes.min(planes.len()) {
        out.push(WIDTHS);
        out.extend_from_slice(&head);
        put_blob(out, &lengths, packer);
        out.extend_from_slice(&mantissas(&scaled, &lengths));
    } else if packed_bytes < planes.len() {
        out.push(PACKED);
        out.extend_from_slice(&head);
        out.push(width);
        let mut bits = BitWriter::default();
        for value in &scaled {
            bits.push(*value, u32::from(width));
        }
        out.extend_from_slice(&bits.finish());
    } else {
        out.push(PLANES);
        out.extend_from_slice(&head);
        out.extend_from_slice(&planes);
    }
}

/// Greatest common divisor of all distances from `min`; 0 when all are equal.
fn common_step(values: &[u64], min: u64) -> u64 {
    let mut step = 0;
    for value in values {
        let mut distance = value - min;
        if step == 1 {
            break;
        }
        while distance != 0 {
            (step, distance) = (distance, step % distance);
        }
    }
    step
}

fn planes_form(scaled: &[u64], width: u8, packer: &mut Packer) -> Vec<u8> {
    let n_planes = width.div_ceil(8);
    let mut planes = Vec::with_capacity(scaled.len() * usize::from(n_planes));
    for plane in (0..n_planes).rev() {
        planes.extend(scaled.iter().map(|value| low_byte(value >> (8 * plane))));
    }
    let mut form = vec![n_planes];
    put_blob(&mut form, &planes, packer);
    form
}

fn mantissas(scaled: &[u64], lengths: &[u8]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    for (value, length) in scaled.iter().zip(lengths) {
        if let Some(width) = length.checked_sub(1).filter(|width| 0 < *width) {
            bits.push(value & !(1 << width), u32::from(width));
        }
    }
    bits.finish()
}

/// Bytes of the WIDTHS form: the entropy of the lengths, the mantissas and a frame.
fn widths_bytes_about(lengths: &[u8]) -> usize {
    const FRAME_BYTES: usize = 40;
    let mut counts = [0_u32; 65];
    let mut mantissa_bits = 0;
    for length in lengths {
        mantissa_bits += usize::from(length.saturating_sub(1));
        if let Some(count) = counts.get_mut(usize::from(*length)) {
            *count += 1;
        }
    }
    let n = lengths.len() as f64;
    let used = counts.iter().filter(|count| **count != 0).map(|count| f64::from(*count));
    let entropy_bits: f64 = used.map(|count| count * (n / count).log2().max(0.1)).sum();
    FRAME_BYTES + mantissa_bits.div_ceil(8) + float_bytes(entropy_bits)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate; as saturates")]
fn float_bytes(bits: f64) -> usize {
    (bits / 8.0) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "a bit length is at most 64")]
fn bit_length(value: u64) -> u8 {
    (64 - value.leading_zeros()) as u8
}

impl Ints {
    /// Reads what `put_ints` wrote for `n` values.
    pub(crate) fn read(reader: &mut Reader<'_>, n: usize, unpacker: &mut Unpacker) -> Result<Self, Malformed> {
        let form = reader.u8()?;
        if form == CONSTANT {
            return Ok(Self::Constant(reader.varint()?));
        }
        let (min, step) = (reader.varint()?, reader.varint()?);
        match form {
            PACKED => {
                let width = reader.u8()?;
                if !(1..=64).contains(&width) {
                    return Err(Malformed("a bit width is not in [1, 64]"));
                }
                let bits = reader.bytes(n.saturating_mul(usize::from(width)).div_ceil(8))?.to_vec();
                Ok(Self::Packed { min, step, width, bits })
            }
            PLANES => {
                let n_planes = usize::from(reader.u8()?);
                let planes = reader.blob(unpacker)?;
                if planes.len() != n.saturating_mul(n_planes) || !(1..=8).contains(&n_planes) {
                    return Err(Malformed("byte planes do not fit the number of values"));
                }
                Ok(Self::Planes { min, step, n, planes })
            }
            WIDTHS => Widths::read(reader, n, min, step, unpacker).map(Self::Widths),
            _ => Err(Malformed("unknown form of numbers")),
        }
    }

    /// All `n` numbers at once: faster than `read` and `into_values` where that looks for places to start from.
    pub(crate) fn read_values(
        reader: &mut Reader<'_>,
        n: usize,
        unpacker: &mut Unpacker,
    ) -> Result<Vec<u64>, Malformed> {
        let mut ahead = *reader;
        if ahead.u8()? != WIDTHS {
            return Ok(Self::read(reader, n, unpacker)?.into_values(n));
        }
        let (min, step) = (ahead.varint()?, ahead.varint()?);
        let lengths = lengths_of(&mut ahead, n, unpacker)?;
        let n_bits: usize = lengths.iter().map(|length| usize::from(length.saturating_sub(1))).sum();
        let bits = ahead.bytes(n_bits.div_ceil(8))?;
        *reader = ahead;
        let mut at = 0;
        let value = |length: &u8| {
            let value = scaled(*length, bits, at).wrapping_mul(step).wrapping_add(min);
            at += usize::from(length.saturating_sub(1));
            value
        };
        Ok(lengths.iter().map(value).collect())
    }

    /// The number at `idx`; 0 past the end.
    pub(crate) fn get(&self, idx: usize) -> u64 {
        match self {
            Self::Constant(value) => *value,
            Self::Packed { min, step, width, bits } => {
                let scaled = read_bits(bits, idx * usize::from(*width), u32::from(*width));
                scaled.wrapping_mul(*step).wrapping_add(*min)
            }
            Self::Planes { min, step, n, planes } => {
                let bytes = planes.chunks_exact((*n).max(1)).filter_map(|plane| plane.get(idx));
                let scaled = bytes.fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
                scaled.wrapping_mul(*step).wrapping_add(*min)
            }
            Self::Widths(widths) => widths.get(idx),
            Self::Values(values) => values.get(idx).copied().unwrap_or(0),
        }
    }

    /// All `n` numbers, which must be as many as were written; faster than `get` for each.
    pub(crate) fn into_values(self, n: usize) -> Vec<u64> {
        match self {
            Self::Constant(value) => vec![value; n],
            Self::Packed { .. } => (0..n).map(|idx| self.get(idx)).collect(),
            Self::Planes { min, step, n: n_written, planes } => {
                let mut values = vec![0_u64; n];
                for plane in planes.chunks_exact(n_written.max(1)) {
                    for (value, byte) in values.iter_mut().zip(plane) {
                        *value = (*value << 8) | u64::from(*byte);
                    }
                }
                for value in &mut values {
                    *value = value.wrapping_mul(step).wrapping_add(min);
                }
                values
            }
            Self::Widths(widths) => widths.values(),
            Self::Values(values) => values,
        }
    }

    /// As `get`, for numbers that are indexes; what does not fit becomes an index that exists nowhere.
    pub(crate) fn index(&self, idx: usize) -> usize {
        usize::try_from(self.get(idx)).unwrap_or(usize::MAX)
    }
}

impl Widths {
    fn read(
        reader: &mut Reader<'_>,
        n: usize,
        min: u64,
        step: u64,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let lengths = lengths_of(reader, n, unpacker)?;
        let mut at = 0;
        let mut checkpoints = Vec::with_capacity(n / CHECKPOINT_VALUES + 1);
        for lengths in lengths.chunks(CHECKPOINT_VALUES) {
            checkpoints.push(at);
            at += lengths.iter().map(|length| usize::from(length.saturating_sub(1))).sum::<usize>();
        }
        let bits = reader.bytes(at.div_ceil(8))?.to_vec();
        Ok(Self { min, step, lengths, bits, checkpoints })
    }

    fn get(&self, idx: usize) -> u64 {
        let checkpoint = idx / CHECKPOINT_VALUES;
        let Some(mut at) = self.checkpoints.get(checkpoint).copied() else { return 0 };
        let before = self.lengths.get(checkpoint * CHECKPOINT_VALUES..idx).unwrap_or_default();
        at += before.iter().map(|length| usize::from(length.saturating_sub(1))).sum::<usize>();
        self.lengths.get(idx).map_or(0, |length| self.value(*length, at))
    }

    fn values(&self) -> Vec<u64> {
        let mut at = 0;
        let value = |length: &u8| {
            let value = self.value(*length, at);
            at += usize::from(length.saturating_sub(1));
            value
        };
        self.lengths.iter().map(value).collect()
    }

    /// The value of `length` bits, all but the first of which stand at bit `at`.
    fn value(&self, length: u8, at: usize) -> u64 {
        scaled(length, &self.bits, at).wrapping_mul(self.step).wrapping_add(self.min)
    }
}

fn lengths_of(reader: &mut Reader<'_>, n: usize, unpacker: &mut Unpacker) -> Result<Vec<u8>, Malformed> {
    let lengths = reader.blob(unpacker)?;
    if lengths.len() == n && lengths.iter().all(|length| *length <= 64) {
        return Ok(lengths);
    }
    Err(Malformed("bit lengths do not fit the number of values"))
}

/// The number of `length` bits, at most 64, all but the first of which stand at bit `at`.
#[inline]
fn scaled(length: u8, bits: &[u8], at: usize) -> u64 {
    match length {
        0 | 1 => u64::from(length),
        _ => {
            let width = u32::from(length - 1);
            read_bits(bits, at, width) | (1 << width)
        }
    }
}
