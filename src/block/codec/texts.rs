//! A run of byte strings without a dictionary: what they share is stored once, the rest as densely as it allows.
//!
//! ```text
//! 0 BYTES    prefix:text suffix:text   ints: lengths between them   blob: all middles
//! 1 DECIMAL  k:u8 in [1, 8]   k + 1 texts: what stands around k numbers without leading zeros   k times ints
//! 2 FIXED    len:u8 template:len bytes   mask: len bits, 1 = varies   then the varying bytes of all values as
//!            symbols:u8   0 blob of bytes | 1 blob of hex nibbles (0-9a-f) | 2 ints, zero-padded decimals
//! 3 KINDS    see `templates`
//! ```
//! UUIDs, padded numbers and hex ids are FIXED, `user-17` and `10.0.3.17` are DECIMAL.

use std::ops::Range;
use std::sync::Arc;

use super::bytes::{Malformed, Packer, Reader, Unpacker, put_blob, put_text};
use super::codes::{Contexts, Needs};
use super::ints::{Ints, put_ints};
use super::templates::{Templates, put_templates};

const BYTES: u8 = 0;
const DECIMAL: u8 = 1;
const FIXED: u8 = 2;
const KINDS: u8 = 3;
const SYMBOLS_BYTES: u8 = 0;
const SYMBOLS_NIBBLES: u8 = 1;
const SYMBOLS_DECIMAL: u8 = 2;
/// 10^19 - 1 is below 2^64.
const DECIMAL_DIGITS_MAX: usize = 19;
/// Texts with more numbers in them are left to zstd.
const NUMBERS_MAX: usize = 8;

/// Byte strings as read; each is rebuilt when it is asked for.
#[derive(Debug)]
pub(crate) enum Texts {
    /// Any number of empty strings.
    Empty,
    Bytes {
        prefix: Vec<u8>,
        suffix: Vec<u8>,
        ends: Ends,
        middles: Vec<u8>,
    },
    Decimal {
        /// Before the first number.
        prefix: Vec<u8>,
        /// Each number and what follows it.
        numbers: Vec<(Ints, Vec<u8>)>,
    },
    Fixed {
        template: Vec<u8>,
        /// Positions in `template` that vary.
        varying: Vec<usize>,
        symbols: Symbols,
    },
    Kinds(Templates),
    /// Places among fewer stored values.
    Same {
        places: Vec<u32>,
        stored: Box<Texts>,
    },
    /// Indexes into a dictionary.
    Coded {
        codes: Ints,
        dictionary: Arc<Texts>,
        n_entries: usize,
    },
}

/// Where each middle ends.
#[derive(Debug)]
pub(crate) enum Ends {
    /// All are of this length.
    Every(usize),
    At(Vec<usize>),
}

/// The varying bytes of fixed-length strings.
#[derive(Debug)]
pub(crate) enum Symbols {
    Bytes(Vec<u8>),
    Nibbles(Vec<u8>),
    Decimal(Ints),
}

/// Appends `values`, of which there must be at least one.
pub(crate) fn put_texts(out: &mut Vec<u8>, values: &[&[u8]], contexts: &Contexts<'_>, packer: &mut Packer) {
    let Some(first) = values.first() else { return };
    let len = u8::try_from(first.len()).unwrap_or(0);
    if 0 < len && values.iter().all(|value| value.len() == first.len()) {
        put_fixed(out, len, first, values, packer);
        return;
    }
    if put_decimal_form(out, first, values, packer) {
        return;
    }
    let start = out.len();
    out.push(KINDS);
    if put_templates(out, values, contexts, packer) {
        return;
    }
    out.truncate(start);
    let (prefix, suffix) = shared_ends(first, values);
    out.push(BYTES);
    put_text(out, first.get(..prefix).unwrap_or_default());
    put_text(out, first.get(first.len() - suffix..).unwrap_or_default());
    let lengths: Vec<u64> = values.iter().map(|value| middle(value, prefix, suffix).len() as u64).collect();
    put_ints(out, &lengths, packer);
    let middles: Vec<u8> = values.iter().flat_map(|value| middle(value, prefix, suffix)).copied().collect();
    put_blob(out, &middles, packer);
}

/// Lengths of the longest prefix and suffix that all values share; together never longer than the shortest value.
fn shared_ends(first: &[u8], values: &[&[u8]]) -> (usize, usize) {
    let (mut prefix, mut suffix, mut shortest) = (first.len(), first.len(), first.len());
    for value in values {
        shortest = shortest.min(value.len());
        prefix = first.iter().zip(*value).take(prefix).take_while(|(a, b)| a == b).count();
        suffix = first.iter().rev().zip(value.iter().rev()).take(suffix).take_while(|(a, b)| a == b).count();
    }
    (prefix, suffix.min(shortest - prefix))
}

fn middle(value: &[u8], prefix: usize, suffix: usize) -> &[u8] {
    value.get(prefix..value.len() - suffix).unwrap_or_default()
}

/// The DECIMAL form; `false` when some value has other texts around its numbers than the first one.
fn put_decimal_form(out: &mut Vec<u8>, first: &[u8], values: &[&[u8]], packer: &mut Packer) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    // Between two neighbouring non-digits lies no number.
    let mut around: Vec<&[u8]> = first.chunk_by(|a, b| is_digit(a) == is_digit(b)).collect();
    let n_numbers = around.iter().filter(|piece| piece.iter().all(is_digit)).count();
    if !(1..=NUMBERS_MAX).contains(&n_numbers) {
        return false;
    }
    if first.first().is_some_and(is_digit) {
        around.insert(0, &[]);
    }
    if first.last().is_some_and(is_digit) {
        around.push(&[]);
    }
    let around: Vec<&[u8]> = around.into_iter().step_by(2).collect();
    let mut numbers = vec![Vec::with_capacity(values.len()); n_numbers];
    if !values.iter().all(|value| split_numbers(value, &around, &mut numbers)) {
        return false;
    }
    out.extend_from_slice(&[DECIMAL, super::bytes::low_byte(n_numbers as u64)]);
    for piece in around {
        put_text(out, piece);
    }
    for numbers in numbers {
        put_ints(out, &numbers, packer);
    }
    true
}

/// Takes the numbers between the pieces of `around`; `false` when the value is not built like that.
fn split_numbers(value: &[u8], around: &[&[u8]], numbers: &mut [Vec<u64>]) -> bool {
    let Some((prefix, after)) = around.split_first() else { return false };
    let Some(mut rest) = value.strip_prefix(*prefix) else { return false };
    for (piece, numbers) in after.iter().zip(numbers) {
        let n_digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, behind) = rest.split_at(n_digits);
        let (Some(number), Some(behind)) = (canonical_decimal(digits), behind.strip_prefix(*piece)) else {
            return false;
        };
        numbers.push(number);
        rest = behind;
    }
    rest.is_empty()
}

/// A number without leading zeros and of at most 19 digits.
pub(super) fn canonical_decimal(text: &[u8]) -> Option<u64> {
    let padded = 1 < text.len() && text.starts_with(b"0");
    if padded { None } else { decimal(text.iter().copied()) }
}

fn decimal(digits: impl ExactSizeIterator<Item = u8>) -> Option<u64> {
    if !(1..=DECIMAL_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits.into_iter().try_fold(0_u64, |number, digit| {
        if digit.is_ascii_digit() { Some(number * 10 + u64::from(digit - b'0')) } else { None }
    })
}

fn put_fixed(out: &mut Vec<u8>, len: u8, first: &[u8], values: &[&[u8]], packer: &mut Packer) {
    let mut varies = vec![false; first.len()];
    for value in values {
        for ((varies, byte), expected) in varies.iter_mut().zip(*value).zip(first) {
            *varies |= byte != expected;
        }
    }
    out.extend_from_slice(&[FIXED, len]);
    out.extend_from_slice(first);
    out.extend(
        varies.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |mask, (at, bit)| mask | (u8::from(*bit) << at))),
    );
    let n_varying = varies.iter().filter(|varies| **varies).count();
    let mut symbols = Vec::with_capacity(values.len() * n_varying);
    for value in values {
        symbols.extend(value.iter().zip(&varies).filter(|(_, varies)| **varies).map(|(byte, _)| *byte));
    }
    if n_varying == 0 {
        out.push(SYMBOLS_BYTES);
        put_blob(out, &[], packer);
        return;
    }
    let numbers: Option<Vec<u64>> =
        symbols.chunks_exact(n_varying).map(|digits| decimal(digits.iter().copied())).collect();
    if let Some(numbers) = numbers {
        out.push(SYMBOLS_DECIMAL);
        put_ints(out, &numbers, packer);
    } else if let Some(nibbles) = nibbles(&symbols) {
        out.push(SYMBOLS_NIBBLES);
        put_blob(out, &nibbles, packer);
    } else {
        out.push(SYMBOLS_BYTES);
        put_blob(out, &symbols, packer);
    }
}

fn nibbles(symbols: &[u8]) -> Option<Vec<u8>> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pair = |pair: &[u8]| {
        let mut halves = pair.iter().copied().map(nibble);
        Some((halves.next()?? << 4) | halves.next().unwrap_or(Some(0))?)
    };
    symbols.chunks(2).map(pair).collect()
}

impl Texts {
    /// Reads what `put_texts` wrote for `n` values.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        n: usize,
        contexts: &Contexts<'_>,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        match reader.u8()? {
            BYTES => {
                let (prefix, suffix) = (reader.text()?.to_vec(), reader.text()?.to_vec());
                let lengths = Ints::read(reader, n, unpacker)?;
                let middles = reader.blob(unpacker)?;
                let ends = Ends::of(&lengths, n, middles.len())?;
                Ok(Self::Bytes { prefix, suffix, ends, middles })
            }
            DECIMAL => {
                let n_numbers = reader.u8()?;
                let prefix = reader.text()?.to_vec();
                let after: Vec<&[u8]> = (0..n_numbers).map(|_| reader.text()).collect::<Result<_, _>>()?;
                let read = |piece: &[u8]| Ok((Ints::read(reader, n, unpacker)?, piece.to_vec()));
                Ok(Self::Decimal { prefix, numbers: after.into_iter().map(read).collect::<Result<_, _>>()? })
            }
            FIXED => Self::read_fixed(reader, n, unpacker),
            KINDS => Templates::read(reader, n, contexts, unpacker).map(Self::Kinds),
            _ => Err(Malformed("unknown form of texts")),
        }
    }

    /// What `read` needs, told by the first byte.
    pub(crate) fn needs(reader: &mut Reader<'_>) -> Result<Needs, Malformed> {
        Ok(if reader.u8()? == KINDS { Needs::ALL } else { Needs::NONE })
    }

    fn read_fixed(reader: &mut Reader<'_>, n: usize, unpacker: &mut Unpacker) -> Result<Self, Malformed> {
        let len = usize::from(reader.u8()?);
        let template = reader.bytes(len)?.to_vec();
        let mask = reader.bytes(len.div_ceil(8))?;
        let is_set = |at: &usize| mask.get(at / 8).is_some_and(|bits| (bits >> (at % 8)) & 1 == 1);
        let varying: Vec<usize> = (0..len).filter(is_set).collect();
        let n_symbols = n.saturating_mul(varying.len());
        let (symbols, fits) = match reader.u8()? {
            SYMBOLS_BYTES => {
                let bytes = reader.blob(unpacker)?;
                let fits = bytes.len() == n_symbols;
                (Symbols::Bytes(bytes), fits)
            }
            SYMBOLS_NIBBLES => {
                let nibbles = reader.blob(unpacker)?;
                let fits = nibbles.len() == n_symbols.div_ceil(2);
                (Symbols::Nibbles(nibbles), fits)
            }
            SYMBOLS_DECIMAL => (Symbols::Decimal(Ints::read(reader, n, unpacker)?), true),
            _ => return Err(Malformed("unknown form of symbols")),
        };
        if fits {
            Ok(Self::Fixed { template, varying, symbols })
        } else {
            Err(Malformed("symbols of the wrong length"))
        }
    }

    /// Appends the value at `idx` to `out`.
    pub(crate) fn write(&self, idx: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Empty => {}
            Self::Bytes { prefix, suffix, ends, middles } => {
                let middle = ends.range(idx).and_then(|range| middles.get(range));
                out.extend_from_slice(prefix);
                out.extend_from_slice(middle.ok_or(Malformed("a text is past the end"))?);
                out.extend_from_slice(suffix);
            }
            Self::Decimal { prefix, numbers } => {
                out.extend_from_slice(prefix);
                for (numbers, piece) in numbers {
                    put_decimal(out, numbers.get(idx));
                    out.extend_from_slice(piece);
                }
            }
            Self::Fixed { template, varying, symbols } => {
                let start = out.len();
                out.extend_from_slice(template);
                if let Some(written) = out.get_mut(start..) {
                    symbols.fill(idx, varying, written);
                }
            }
            Self::Kinds(templates) => templates.write(idx, out)?,
            Self::Same { places, stored } => {
                let place = *places.get(idx).ok_or(Malformed("a text is past the end"))?;
                stored.write(place as usize, out)?;
            }
            Self::Coded { codes, dictionary, n_entries } => {
                let code = codes.index(idx);
                if *n_entries <= code {
                    return Err(Malformed("a code is not in its dictionary"));
                }
                dictionary.write(code, out)?;
            }
        }
        Ok(())
    }
}

impl Symbols {
    fn fill(&self, idx: usize, varying: &[usize], written: &mut [u8]) {
        let first = idx.saturating_mul(varying.len());
        let mut number = if let Self::Decimal(numbers) = self { numbers.get(idx) } else { 0 };
        for (offset, position) in varying.iter().enumerate().rev() {
            let at = first.saturating_add(offset);
            let symbol = match self {
                Self::Bytes(bytes) => bytes.get(at).copied().unwrap_or(0),
                Self::Nibbles(nibbles) => {
                    let pair = nibbles.get(at / 2).copied().unwrap_or(0);
                    hex_digit(if at % 2 == 0 { pair >> 4 } else { pair & 0xf })
                }
                Self::Decimal(_) => {
                    let digit = super::bytes::low_byte(number % 10);
                    number /= 10;
                    b'0' + digit
                }
            };
            if let Some(byte) = written.get_mut(*position) {
                *byte = symbol;
            }
        }
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
}

/// Appends a number's digits.
pub(super) fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let start = out.len();
    loop {
        out.push(b'0' + super::bytes::low_byte(number % 10));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

impl Ends {
    /// The last end must be `total`.
    fn of(lengths: &Ints, n: usize, total: usize) -> Result<Self, Malformed> {
        const UNEVEN: Malformed = Malformed("lengths of texts do not add up");
        // No list for this: `n` has no bytes behind it here.
        if let Ints::Constant(_) = lengths {
            let every = lengths.index(0);
            return if every.checked_mul(n) == Some(total) { Ok(Self::Every(every)) } else { Err(UNEVEN) };
        }
        let mut end = 0_usize;
        let ends = (0..n).map(|idx| {
            end = end.saturating_add(lengths.index(idx));
            end
        });
        let ends: Vec<usize> = ends.collect();
        if end == total { Ok(Self::At(ends)) } else { Err(UNEVEN) }
    }

    fn range(&self, idx: usize) -> Option<Range<usize>> {
        match self {
            Self::Every(len) => {
                let start = len.checked_mul(idx)?;
                Some(start..start.checked_add(*len)?)
            }
            Self::At(ends) => {
                let start = idx.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
                Some(start..*ends.get(idx)?)
            }
        }
    }
}
