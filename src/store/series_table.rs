//! Series of blocks, kept once for a partition: most blocks hold the same ones, and every percentile asks for them.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::SeriesKey;

use super::StoreError;

/// The series of one block or of the roll-ups, in order, so that those of one service are neighbours.
pub type SeriesList = Arc<[Arc<SeriesKey<'static>>]>;

/// Lists that were asked for. Costs 8 bytes per series of a list and the names once.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: HashSet<Arc<SeriesKey<'static>>>,
    /// By block number; the roll-ups stand at 0.
    lists: Vec<Option<SeriesList>>,
}

impl SeriesTable {
    /// The list of `block_no`, read the first time.
    pub(super) fn list(
        &self,
        block_no: u64,
        read: impl FnOnce() -> Result<Vec<SeriesKey<'static>>, StoreError>,
    ) -> Result<SeriesList, StoreError> {
        let at = usize::try_from(block_no).unwrap_or(usize::MAX);
        if let Some(Some(known)) = self.state.lock().lists.get(at) {
            return Ok(Arc::clone(known));
        }
        let keys = read()?;
        let mut state = self.state.lock();
        let list: SeriesList = keys.into_iter().map(|key| state.shared(key)).collect();
        if state.lists.len() <= at {
            state.lists.resize(at + 1, None);
        }
        if let Some(place) = state.lists.get_mut(at) {
            *place = Some(Arc::clone(&list));
        }
        Ok(list)
    }
}

impl State {
    fn shared(&mut self, key: SeriesKey<'static>) -> Arc<SeriesKey<'static>> {
        if let Some(known) = self.names.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
        let _new = self.names.insert(Arc::clone(&key));
        key
    }
}
