//! Series of blocks, kept once for a partition: most blocks hold the same ones, and every percentile asks for them.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{packed, unpacked};
use crate::model::{Connection, Family, SeriesKey, SpanKind, SpanStatus};

use super::StoreError;

/// Where the series of the roll-ups stand: there is no block 0.
pub(super) const ROLLUPS: u64 = 0;

/// The series of one block or of the roll-ups, in order, so that those of one service are neighbours.
pub type SeriesList = Arc<[Arc<SeriesKey<'static>>]>;

/// A block's list with more series than this is read again for each question: names without end would fill the memory.
const LIST_KEPT_MAX: usize = 4_096;

/// Lists that were asked for. Costs 8 bytes per series of a list and the names once.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: HashSet<Arc<SeriesKey<'static>>>,
    /// By block number, and `ROLLUPS`.
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
        if block_no != ROLLUPS && LIST_KEPT_MAX < keys.len() {
            return Ok(keys.into_iter().map(Arc::new).collect());
        }
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

/// One blob (`block::packed`). In it, per series: namespace, service, name (each length:4 BE + bytes), kind:1, status:1, entry:1, family:1 (0 none; 1 peel: number of
/// attributes:1, keys and values; 2 edge: connection:1, namespace and name of the client).
pub(super) fn encode_series<'a>(series: impl IntoIterator<Item = &'a SeriesKey<'static>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in series {
        put_texts(&mut bytes, &[&key.namespace, &key.service, &key.span_name]);
        bytes.extend_from_slice(&[key.kind as u8, key.status as u8, u8::from(key.entry)]);
        match &key.family {
            None => bytes.push(0),
            Some(Family::Peel { attributes }) => {
                bytes.extend_from_slice(&[1, u8::try_from(attributes.len()).unwrap_or(u8::MAX)]);
                for (dimension, value) in attributes.iter().take(usize::from(u8::MAX)) {
                    put_texts(&mut bytes, &[dimension, value]);
                }
            }
            Some(Family::Edge { namespace, client, connection }) => {
                bytes.extend_from_slice(&[2, *connection as u8]);
                put_texts(&mut bytes, &[namespace, client]);
            }
        }
    }
    packed(&bytes)
}

fn put_texts(bytes: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// `None` when the bytes are not what `encode_series` wrote.
pub(super) fn decode_series(blob: &[u8]) -> Option<Vec<SeriesKey<'static>>> {
    let raw = unpacked(blob)?;
    let mut bytes = raw.as_slice();
    let mut series = Vec::new();
    while !bytes.is_empty() {
        let (namespace, service) = (take_text(&mut bytes)?, take_text(&mut bytes)?);
        let span_name = take_text(&mut bytes)?;
        let ([kind, status, entry, family], rest) = bytes.split_first_chunk::<4>()?;
        bytes = rest;
        let (kind, status) = (SpanKind::from(i32::from(*kind)), SpanStatus::from(i32::from(*status)));
        let family = match family {
            0 => None,
            1 => {
                let (n, rest) = bytes.split_first()?;
                bytes = rest;
                let mut attribute = || Some((take_text(&mut bytes)?.into(), take_text(&mut bytes)?.into()));
                Some(Family::Peel { attributes: (0..*n).map(|_| attribute()).collect::<Option<_>>()? })
            }
            2 => {
                let (code, rest) = bytes.split_first()?;
                bytes = rest;
                let connection = Connection::from_code(*code)?;
                let (namespace, client) = (take_text(&mut bytes)?.into(), take_text(&mut bytes)?.into());
                Some(Family::Edge { namespace, client, connection })
            }
            _ => return None,
        };
        let [namespace, service, span_name] = [namespace, service, span_name].map(Into::into);
        series.push(SeriesKey { namespace, service, span_name, kind, status, entry: *entry == 1, family });
    }
    Some(series)
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}
