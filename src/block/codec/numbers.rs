//! A column of numbers: as they are, or as codes into the chunk's own list of distinct values.
//!
//! ```text
//! 0 PLAIN  ints
//! 1 FEW    d:varint   ints: the d distinct values, ascending   codes
//! 2 SAME   flags of repetitions (`repeats`), then the stored values in form 0 or 1
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::bytes::{Malformed, Packer, Reader, Unpacker, put_varint};
use super::codes::{Contexts, Needs, put_codes, read_codes};
use super::ints::{Ints, put_ints};
use super::repeats::{Places, Repeats, Source};

const PLAIN: u8 = 0;
const FEW: u8 = 1;
const SAME: u8 = 2;
/// More distinct values than this are no list.
const DISTINCT_MAX: usize = 1024;
/// A chunk of so few bytes needs no better form.
const BYTES_ENOUGH: usize = 96;

/// A hash of numbers: they are not chosen by anybody who could gain from collisions beyond one row group.
#[derive(Default)]
pub(crate) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash << 8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// A map from numbers.
pub(crate) type ByNumber<T> = HashMap<u64, T, BuildHasherDefault<Multiply>>;

/// Appends `values`, of which there must be at least one.
pub(crate) fn put_numbers(out: &mut Vec<u8>, values: &[u64], contexts: &Contexts<'_>, packer: &mut Packer) {
    let alone = alone(values, contexts, packer);
    let find = |source| {
        let same = |a: usize, b: usize| values.get(a) == values.get(b);
        Repeats::find(values.len(), source, contexts, same).filter(|repeats| repeats.may_beat(alone.len()))
    };
    if BYTES_ENOUGH < alone.len()
        && let Some(repeats) =
            [Source::Trace, Source::Series].into_iter().filter_map(find).min_by_key(|repeats| repeats.stored.len())
    {
        let mut same = vec![SAME];
        repeats.put(&mut same, contexts, packer);
        same.extend_from_slice(&self::alone(&repeats.pick(values), &contexts.of(&repeats.owners), packer));
        if same.len() < alone.len() {
            out.extend_from_slice(&same);
            return;
        }
    }
    out.extend_from_slice(&alone);
}

/// Form 0 or 1.
fn alone(values: &[u64], contexts: &Contexts<'_>, packer: &mut Packer) -> Vec<u8> {
    let Some((distinct, codes)) = few_distinct(values) else {
        let mut plain = vec![PLAIN];
        put_ints(&mut plain, values, packer);
        return plain;
    };
    let mut few = vec![FEW];
    if 1 < distinct.len() {
        put_varint(&mut few, distinct.len() as u64);
        put_ints(&mut few, &distinct, packer);
        put_codes(&mut few, &codes, distinct.len(), contexts, packer);
        // A long list is only worth it when its codes are short.
        if distinct.len() * 32 < values.len() {
            return few;
        }
    }
    let mut plain = vec![PLAIN];
    put_ints(&mut plain, values, packer);
    if distinct.len() <= 1 || plain.len() <= few.len() { plain } else { few }
}

/// The distinct values in ascending order, if they are few, and the place of each value among them.
fn few_distinct(values: &[u64]) -> Option<(Vec<u64>, Vec<u64>)> {
    let max = (values.len() / 4).clamp(1, DISTINCT_MAX);
    let mut places: ByNumber<u64> = ByNumber::default();
    let mut last = None;
    for value in values {
        if last != Some(value) && places.insert(*value, 0).is_none() && max < places.len() {
            return None;
        }
        last = Some(value);
    }
    let mut distinct: Vec<u64> = places.keys().copied().collect();
    distinct.sort_unstable();
    for (place, value) in (0..).zip(&distinct) {
        let _zero = places.insert(*value, place);
    }
    let codes = values.iter().map(|value| places.get(value).copied().unwrap_or(0)).collect();
    Some((distinct, codes))
}

/// Reads what `put_numbers` wrote for `n` values.
pub(crate) fn read_numbers(
    reader: &mut Reader<'_>,
    n: usize,
    contexts: &Contexts<'_>,
    unpacker: &mut Unpacker,
) -> Result<Ints, Malformed> {
    let form = reader.u8()?;
    if form != SAME {
        return read_alone(form, reader, n, contexts, unpacker);
    }
    let places = Places::read(reader, n, contexts, unpacker)?;
    let n_stored = places.owners.len();
    let stored = read_alone(reader.u8()?, reader, n_stored, &contexts.of(&places.owners), unpacker)?;
    let stored = stored.into_values(n_stored);
    let value = |place: &u32| stored.get(*place as usize).copied().unwrap_or(0);
    Ok(Ints::Values(places.of_value.iter().map(value).collect()))
}

/// What `read_numbers` needs, told by the first bytes.
pub(crate) fn needs_of_numbers(reader: &mut Reader<'_>, unpacker: &mut Unpacker) -> Result<Needs, Malformed> {
    match reader.u8()? {
        PLAIN => Ok(Needs::NONE),
        FEW => {
            let n_distinct = usize::try_from(reader.varint()?).unwrap_or(usize::MAX).min(DISTINCT_MAX);
            let _distinct = Ints::read(reader, n_distinct, unpacker)?;
            reader.u8().map(Needs::of_context)
        }
        _ => Ok(Needs::ALL),
    }
}

fn read_alone(
    form: u8,
    reader: &mut Reader<'_>,
    n: usize,
    contexts: &Contexts<'_>,
    unpacker: &mut Unpacker,
) -> Result<Ints, Malformed> {
    match form {
        PLAIN => Ints::read(reader, n, unpacker),
        FEW => {
            let n_distinct = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            if DISTINCT_MAX < n_distinct {
                return Err(Malformed("a list of distinct values is too long"));
            }
            let distinct = Ints::read(reader, n_distinct, unpacker)?.into_values(n_distinct);
            let codes = read_codes(reader, n, n_distinct, contexts, unpacker)?;
            let mut values = codes.into_values(n);
            for value in &mut values {
                let code = usize::try_from(*value).unwrap_or(usize::MAX);
                *value = *distinct.get(code).ok_or(Malformed("a code is not in its list"))?;
            }
            Ok(Ints::Values(values))
        }
        _ => Err(Malformed("unknown form of a number column")),
    }
}
