//! Numbers for the cells of a table that is mostly empty: series by interval.

use std::collections::HashMap;

/// Cells that are found without a look into the table: spans that lie together are mostly counted together.
const RECENT: usize = 4_096;
const RECENT_BITS: u32 = RECENT.ilog2();
/// No cell has these.
const NOBODY: (u32, u32) = (u32::MAX, u32::MAX);

/// A series and an interval.
pub(super) type CellKey = (u32, u32);

/// See the module page.
pub(super) struct CellNumbers {
    known: HashMap<CellKey, u32>,
    /// By hash: the cell that was asked for last.
    recent: Vec<(CellKey, u32)>,
    cells_max: usize,
}

impl CellNumbers {
    /// For so many cells.
    pub(super) fn new(cells_max: usize) -> Self {
        Self { known: HashMap::new(), recent: vec![(NOBODY, 0); RECENT], cells_max }
    }

    /// The number of a cell; `None` for a new one when there are too many.
    #[inline]
    pub(super) fn of(&mut self, key: CellKey) -> Option<u32> {
        let hash = key.0.wrapping_mul(0x9e37_79b1) ^ key.1.wrapping_mul(0x85eb_ca6b);
        let at = (hash >> (u32::BITS - RECENT_BITS)) as usize;
        match self.recent.get(at) {
            Some((recent, number)) if *recent == key && key != NOBODY => Some(*number),
            _ => self.look_up(key, at),
        }
    }

    fn look_up(&mut self, key: CellKey, at: usize) -> Option<u32> {
        let number = match self.known.get(&key) {
            Some(known) => *known,
            None if self.cells_max <= self.known.len() => return None,
            None => {
                let new = u32::try_from(self.known.len()).ok()?;
                let _none = self.known.insert(key, new);
                new
            }
        };
        *self.recent.get_mut(at)? = (key, number);
        Some(number)
    }

    /// Every cell with its number, by series and interval.
    pub(super) fn sorted(&self) -> Vec<(CellKey, u32)> {
        let mut all: Vec<_> = self.known.iter().map(|(key, number)| (*key, *number)).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_its_number_and_cells_beyond_the_bound_get_none() {
        let mut numbers = CellNumbers::new(20_000);
        let keys: Vec<CellKey> = (0..20_000).map(|at| (at % 7, at)).collect();
        for _twice in 0..2 {
            for (number, key) in (0..).zip(&keys) {
                assert_eq!(numbers.of(*key), Some(number), "{key:?}");
            }
        }
        assert_eq!(numbers.of((9, 9)), None);
        assert_eq!(numbers.of(NOBODY), None);
        let sorted = numbers.sorted();
        assert!(sorted.is_sorted() && sorted.len() == keys.len());
    }
}
