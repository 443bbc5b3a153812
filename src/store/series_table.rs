//! Series of blocks, kept once for a partition: most blocks hold the same ones, and every percentile asks for them.

use std::collections::{HashSet, VecDeque};
use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{packed, unpacked};
use crate::limits::SERIES_MAX;
use crate::model::{Connection, Family, SeriesKey, SpanKind, SpanStatus};

use super::StoreError;

/// Where the series of the roll-ups stand: there is no block 0.
pub(super) const ROLLUPS: u64 = 0;

/// A block's list with more series than this is kept only as long as `NAMES_KEPT_MAX` allows.
const LIST_KEPT_MAX: usize = 4_096;
/// Names of one partition after which long lists are read again for each question: names without end would fill the
/// memory. As many as its roll-ups can have, some 200 bytes each.
const NAMES_KEPT_MAX: usize = SERIES_MAX;

/// The series of one block or of the roll-ups: in order, or two runs that are, so that those of one service are neighbours.
#[derive(Clone, Debug)]
pub struct SeriesList(Arc<Listed>);

#[derive(Debug)]
struct Listed {
    keys: Box<[Arc<SeriesKey<'static>>]>,
    /// Neighbours of one namespace and service, by service, then ascending.
    services: Box<[Range<u32>]>,
}

impl SeriesList {
    /// Numbers of the series of a service, in every namespace. Cost: O(log services + series of the service).
    pub fn of_service(&self, service: &str) -> impl Iterator<Item = u32> {
        let Listed { keys, services } = &*self.0;
        let name = |run: &Range<u32>| keys.get(run.start as usize).map(|key| &*key.service);
        let first = services.partition_point(|run| name(run) < Some(service));
        services.iter().skip(first).take_while(move |run| name(run) == Some(service)).flat_map(Range::clone)
    }
}

impl FromIterator<Arc<SeriesKey<'static>>> for SeriesList {
    fn from_iter<T: IntoIterator<Item = Arc<SeriesKey<'static>>>>(keys: T) -> Self {
        let keys: Box<[_]> = keys.into_iter().collect();
        let mut at = 0;
        let alike =
            |a: &Arc<SeriesKey<'_>>, b: &Arc<SeriesKey<'_>>| a.service == b.service && a.namespace == b.namespace;
        let mut services: Vec<(&str, Range<u32>)> = Vec::new();
        for run in keys.chunk_by(alike) {
            let end = at + u32::try_from(run.len()).unwrap_or(u32::MAX);
            services.extend(run.first().map(|key| (&*key.service, at..end)));
            at = end;
        }
        services.sort_by_key(|(service, run)| (*service, run.start));
        let services = services.into_iter().map(|(_, run)| run).collect();
        Self(Arc::new(Listed { keys, services }))
    }
}

impl Deref for SeriesList {
    type Target = [Arc<SeriesKey<'static>>];

    fn deref(&self) -> &Self::Target {
        &self.0.keys
    }
}

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
        if let Some(known) = self.known(block_no) {
            return Ok(known);
        }
        let keys = read()?;
        let mut state = self.state.lock();
        if block_no != ROLLUPS && LIST_KEPT_MAX < keys.len() && NAMES_KEPT_MAX < state.names_with(&keys) {
            return Ok(keys.into_iter().map(Arc::new).collect());
        }
        let list: SeriesList = keys.into_iter().map(|key| state.shared(key)).collect();
        state.know(block_no, &list);
        Ok(list)
    }

    /// The list of `block_no`, if it was read before and kept.
    pub(super) fn known(&self, block_no: u64) -> Option<SeriesList> {
        self.state.lock().lists.get(usize::try_from(block_no).ok()?)?.clone()
    }
}

/// Lists of partitions that were closed: who asks for more partitions than may be open opens them in turn, and to read the
/// names would take longer than to read the slots.
#[derive(Debug)]
pub(super) struct ClosedLists {
    /// By the identity of the partition, the one closed last behind.
    tables: VecDeque<(u64, State)>,
    names_max: usize,
}

impl ClosedLists {
    /// Half of what the names of so many open partitions may take.
    pub(super) fn beside(open_partitions_max: usize) -> Self {
        Self { tables: VecDeque::new(), names_max: open_partitions_max.saturating_mul(SERIES_MAX / 2) }
    }

    /// Keeps what a partition knows while it is closed.
    pub(super) fn keep(&mut self, identity: u64, table: &SeriesTable) {
        self.tables.push_back((identity, std::mem::take(&mut *table.state.lock())));
        let mut names = self.tables.iter().map(|(_, table)| table.names_worth()).sum::<usize>();
        while self.names_max < names {
            let Some((_, oldest)) = self.tables.pop_front() else { break };
            names -= oldest.names_worth();
        }
    }

    /// Gives it back to the partition when it is opened again.
    pub(super) fn give(&mut self, identity: u64, table: &SeriesTable) {
        let at = self.tables.iter().position(|(known, _)| *known == identity);
        if let Some((_, known)) = at.and_then(|at| self.tables.remove(at)) {
            *table.state.lock() = known;
        }
    }
}

impl State {
    /// Its memory as a number of names: a name in a list takes 8 bytes of some 200.
    fn names_worth(&self) -> usize {
        self.names.len() + self.lists.iter().flatten().map(|list| list.len()).sum::<usize>() / 24
    }

    fn know(&mut self, block_no: u64, list: &SeriesList) {
        let at = usize::try_from(block_no).unwrap_or(usize::MAX);
        if self.lists.len() <= at {
            self.lists.resize(at.saturating_add(1), None);
        }
        if let Some(place) = self.lists.get_mut(at) {
            *place = Some(list.clone());
        }
    }

    /// How many names there would be with these.
    fn names_with(&self, keys: &[SeriesKey<'static>]) -> usize {
        self.names.len() + keys.iter().filter(|key| !self.names.contains(*key)).count()
    }

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
/// attributes:1, keys and values; 2 edge: connection:1, namespace and name of the client; 3 untimed).
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
            Some(Family::Untimed) => bytes.push(3),
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
            3 => Some(Family::Untimed),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &'static str, service: &'static str, span_name: String) -> SeriesKey<'static> {
        SeriesKey {
            namespace: namespace.into(),
            service: service.into(),
            span_name: span_name.into(),
            kind: SpanKind::Server,
            status: SpanStatus::Unset,
            entry: true,
            family: None,
        }
    }

    #[test]
    fn of_a_service_are_all_its_series_in_every_namespace_and_behind_the_rows_own() {
        let name = |at: usize| format!("call {at}");
        let services =
            [("", "cart"), ("", "shop"), ("eu", "cart"), ("eu", "zoo"), ("", "cart"), ("us", "art"), ("", "shop")];
        let keys = services.into_iter().enumerate();
        let list: SeriesList =
            keys.map(|(at, (namespace, service))| Arc::new(key(namespace, service, name(at)))).collect();
        for service in ["", "art", "car", "cart", "cart2", "shop", "zoo", "zz"] {
            let expected: Vec<u32> =
                (0..).zip(services).filter(|(_, known)| known.1 == service).map(|(at, _)| at).collect();
            assert_eq!(list.of_service(service).collect::<Vec<u32>>(), expected, "{service}");
        }
    }

    #[test]
    fn lists_of_closed_partitions_come_back_until_there_are_too_many() {
        let table = |n: usize| {
            let table = SeriesTable::default();
            let keys = (0..n).map(|at| key("", "cart", format!("call {at}"))).collect();
            let _list = table.list(ROLLUPS, || Ok(keys)).unwrap();
            table
        };
        let names_max = 3 * table(6_000).state.lock().names_worth();
        let mut closed = ClosedLists { tables: VecDeque::new(), names_max };
        (0..4).for_each(|identity| closed.keep(identity, &table(6_000)));
        let came_back = |closed: &mut ClosedLists, identity| {
            let again = SeriesTable::default();
            closed.give(identity, &again);
            again.known(ROLLUPS).map(|list| list.len())
        };
        let back: Vec<_> = (0..5).map(|identity| came_back(&mut closed, identity)).collect();
        let kept = Some(6_000);
        assert_eq!(back, [None, kept, kept, kept, None], "three find room");
        assert_eq!((closed.tables.len(), came_back(&mut closed, 2)), (0, None), "given back once");
        closed.keep(7, &table(20_000));
        assert_eq!((closed.tables.len(), came_back(&mut closed, 7)), (0, None), "too long");
    }

    #[test]
    fn long_lists_are_kept_while_their_names_are_the_same_ones_and_no_longer() {
        let table = SeriesTable::default();
        let names = |from: usize| (from..=from + LIST_KEPT_MAX).map(|at| key("", "cart", format!("{at}"))).collect();
        let is_kept = |block_no, from| {
            let first = table.list(block_no, || Ok(names(from))).unwrap();
            Arc::ptr_eq(&first.0, &table.list(block_no, || Ok(names(from))).unwrap().0)
        };
        assert!((1..40).all(|block_no| is_kept(block_no, 0)), "the same names");
        let kept = (40..60).filter(|block_no| is_kept(*block_no, 10_000 * usize::try_from(*block_no).unwrap())).count();
        assert_eq!(kept, NAMES_KEPT_MAX / (LIST_KEPT_MAX + 1) - 1, "other names");
        assert!(is_kept(60, 0));
    }
}
