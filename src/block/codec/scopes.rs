//! The scope of each row, told by its series and the scope of its parent: a call inside a process stays in it, and the
//! instance that is called is mostly one of few.
//!
//! ```text
//! 0 PLAIN   numbers
//! 1 CALLED  ints(n)     0 = as the last row of the same series whose parent has the same scope, s + 1 = scope s
//! ```

use std::collections::HashMap;

use super::bytes::{Malformed, Packer, Reader, Unpacker};
use super::codes::Contexts;
use super::ints::{Ints, put_ints};
use super::numbers::{ByNumber, put_numbers, read_numbers};

const PLAIN: u8 = 0;
const CALLED: u8 = 1;
/// No parent in the group, or none that comes earlier.
const NO_SCOPE: u64 = u32::MAX as u64;

/// Appends the scopes of the rows, of which there must be at least one.
pub(crate) fn put_scopes(out: &mut Vec<u8>, scopes: &[u64], contexts: &Contexts<'_>, packer: &mut Packer) {
    let mut plain = vec![PLAIN];
    put_numbers(&mut plain, scopes, &Contexts { parents: &[], ..*contexts }, packer);
    let mut last: ByNumber<u64> = ByNumber::default();
    let told = scopes.iter().enumerate().map(|(row, scope)| {
        let before = last.insert(caller(row, scopes, contexts), *scope);
        if before == Some(*scope) { 0 } else { scope + 1 }
    });
    let mut called = vec![CALLED];
    put_ints(&mut called, &told.collect::<Vec<u64>>(), packer);
    out.extend_from_slice(if called.len() < plain.len() { &called } else { &plain });
}

/// Reads what `put_scopes` wrote for `n` rows.
pub(crate) fn read_scopes(
    reader: &mut Reader<'_>,
    n: usize,
    contexts: &Contexts<'_>,
    unpacker: &mut Unpacker,
) -> Result<Vec<u64>, Malformed> {
    match reader.u8()? {
        PLAIN => Ok(read_numbers(reader, n, &Contexts { parents: &[], ..*contexts }, unpacker)?.into_values(n)),
        CALLED => {
            let mut last: ByNumber<u64> = ByNumber::default();
            let mut scopes = Vec::with_capacity(n);
            for (row, told) in Ints::read_values(reader, n, unpacker)?.into_iter().enumerate() {
                let caller = caller(row, &scopes, contexts);
                let scope = match told.checked_sub(1) {
                    Some(scope) => scope,
                    None => *last.get(&caller).ok_or(Malformed("a scope is told by nothing"))?,
                };
                let _before = last.insert(caller, scope);
                scopes.push(scope);
            }
            Ok(scopes)
        }
        _ => Err(Malformed("unknown form of scopes")),
    }
}

/// Series of a row and scope of its parent, as one number.
fn caller(row: usize, scopes: &[u64], contexts: &Contexts<'_>) -> u64 {
    let parent = contexts.parents.get(row).map(|parent| usize::from(*parent)).filter(|parent| *parent < row);
    let scope = parent.and_then(|parent| scopes.get(parent)).map_or(NO_SCOPE, |scope| scope & NO_SCOPE);
    let series = contexts.series.ids.get(row).copied().unwrap_or(0);
    u64::from(series) << 32 | scope
}

/// The callers of all rows, numbered as they are met, and how many there are: a context for attributes.
pub(crate) fn callers(scopes: &[u32], contexts: &Contexts<'_>) -> (Vec<u32>, usize) {
    let scopes: Vec<u64> = scopes.iter().map(|scope| u64::from(*scope)).collect();
    let mut numbers: HashMap<u64, u32, _> = ByNumber::default();
    let number = |row: usize| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(caller(row, &scopes, contexts)).or_insert(next)
    };
    let ids = (0..scopes.len()).map(number).collect();
    (ids, numbers.len())
}
