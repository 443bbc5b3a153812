//! A column of numbers: as they are, or as codes into the chunk's own list of distinct values.
//!
//! ```text
//! 0 PLAIN  ints
//! 1 FEW    d:varint   ints: the d distinct values, ascending   codes
//! ```

use std::collections::BTreeSet;

use super::bytes::{Malformed, Packer, Reader, Unpacker, put_varint};
use super::codes::{Contexts, put_codes, read_codes};
use super::ints::{Ints, put_ints};

const PLAIN: u8 = 0;
const FEW: u8 = 1;
/// More distinct values than this are no list.
const DISTINCT_MAX: usize = 1024;

/// Appends `values`, of which there must be at least one.
pub(crate) fn put_numbers(out: &mut Vec<u8>, values: &[u64], contexts: &Contexts<'_>, packer: &mut Packer) {
    let mut plain = vec![PLAIN];
    put_ints(&mut plain, values, packer);
    if 8 < plain.len()
        && let Some(distinct) = few_distinct(values)
    {
        let mut few = vec![FEW];
        put_varint(&mut few, distinct.len() as u64);
        put_ints(&mut few, &distinct, packer);
        let codes: Vec<u64> =
            values.iter().map(|value| distinct.partition_point(|known| known < value) as u64).collect();
        put_codes(&mut few, &codes, distinct.len(), contexts, packer);
        if few.len() < plain.len() {
            plain = few;
        }
    }
    out.extend_from_slice(&plain);
}

/// The distinct values in ascending order, if they are few.
fn few_distinct(values: &[u64]) -> Option<Vec<u64>> {
    let max = (values.len() / 4).min(DISTINCT_MAX);
    let mut distinct = BTreeSet::new();
    let mut last = None;
    for value in values {
        if last != Some(*value) && distinct.insert(*value) && max < distinct.len() {
            return None;
        }
        last = Some(*value);
    }
    Some(distinct.into_iter().collect())
}

/// Reads what `put_numbers` wrote for `n` values.
pub(crate) fn read_numbers(
    reader: &mut Reader<'_>,
    n: usize,
    contexts: &Contexts<'_>,
    unpacker: &mut Unpacker,
) -> Result<Ints, Malformed> {
    match reader.u8()? {
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
