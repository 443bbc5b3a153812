//! Tables: round trips, what is fetched, how small they are, and damage.

use super::chunk::{ChunkReader, PlaceWidths};
use super::*;
use crate::latency::{Bucket, Exemplar, Resolution, Slot, SlotLatency};
use crate::model::{DurationNanos, UnixNanos};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// 2026-11-23, at the start of a day.
const DAY: u64 = 1_795_392_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

type Slots = BTreeMap<(u32, Slot), SlotLatency>;

#[derive(Debug, thiserror::Error)]
#[error("no bytes at {0:?}")]
struct Missing(Range<u32>);

/// A span to be counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    series: u32,
    at: UnixNanos,
    latency: DurationNanos,
    diversity: u64,
}

fn counted(series: u32, second: u64, micros: u64) -> Counted {
    let at = UnixNanos(DAY + second * SECOND);
    Counted { series, at, latency: DurationNanos(micros * 1_000), diversity: 0 }
}

fn spans(len: Range<usize>) -> impl Strategy<Value = Vec<Counted>> {
    let latency = prop_oneof![20 => 1_u64..1 << 36, 1 => 1_u64 << 41..1 << 44, 1 => Just(u64::MAX)];
    let series = prop_oneof![4 => 0_u32..6, 1 => 0..u32::MAX];
    let span = (series, 0..120 * SECOND, latency, 0_u64..3).prop_map(|(series, at, latency, diversity)| Counted {
        series,
        at: UnixNanos(DAY + at),
        latency: DurationNanos(latency),
        diversity,
    });
    prop::collection::vec(span, len)
}

fn table(spans: &[Counted]) -> Vec<u8> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    for (row, span) in (0..).zip(spans) {
        builder.record(span.series, span.at, span.latency, row, span.diversity);
    }
    builder.finish().expect("small")
}

fn read_range(bytes: &[u8], series: Range<u32>, slots: Range<Slot>) -> Result<Slots, ReadError<Missing>> {
    let fetch = |range: Range<u32>| {
        let at = range.start as usize..range.end as usize;
        bytes.get(at).map(<[u8]>::to_vec).ok_or(Missing(range))
    };
    let mut read = Slots::new();
    let reader = SlotTableReader::open(&fetch)?;
    reader.read(&fetch, series, slots, &mut |series, slot, latency| {
        assert!(read.insert((series, slot), latency.clone()).is_none(), "slots come once");
    })?;
    Ok(read)
}

fn read(bytes: &[u8]) -> Slots {
    read_range(bytes, 0..u32::MAX, Slot::ALL).expect("readable")
}

/// Slots of `resolution` out of `bytes`, the exemplars placed in `block`.
fn rolled(tables: &[(u32, &[u8])], resolution: Resolution) -> Vec<u8> {
    let mut target = SlotTableBuilder::new(resolution);
    for (block, bytes) in tables {
        let fetch = |range: Range<u32>| {
            let at = range.start as usize..range.end as usize;
            bytes.get(at).map(<[u8]>::to_vec).ok_or(Missing(range))
        };
        let reader = SlotTableReader::open(&fetch).expect("readable");
        let from = reader.resolution();
        let mut merge = |series, slot, latency: &mut SlotLatency| {
            if from == Resolution::TenSeconds {
                latency.place_in(*block);
            }
            target.add(series, from.coarsen(slot, resolution).expect("coarser"), latency);
        };
        reader.read(&fetch, 0..u32::MAX, Slot::ALL, &mut merge).expect("readable");
    }
    target.finish().expect("small")
}

#[test]
fn empty_table_has_no_slots() {
    let bytes = table(&[]);
    assert_eq!(read(&bytes), Slots::new());
    let fetch = |range: Range<u32>| Ok::<_, Missing>(bytes[range.start as usize..range.end as usize].to_vec());
    assert_eq!(SlotTableReader::open(&fetch).expect("readable").slots(), None);
}

#[test]
fn lone_span_takes_at_most_8_bytes_with_its_exemplar() {
    for micros in [3, 900, 40_000, 250_000] {
        let one = table(&[counted(5, 0, micros)]).len();
        for (series, second) in [(5, 10), (6, 0), (6, 70), (40, 3)] {
            // A block of 64 Ki rows has rows of two bytes.
            let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
            let spans = [counted(5, 0, micros), counted(series, second, micros)];
            for (s, row) in spans.iter().zip([40_000, 65_535]) {
                builder.record(s.series, s.at, s.latency, row, 0);
            }
            let two = builder.finish().expect("small").len();
            assert!(two - (one + 2) <= 8, "{} bytes for {micros} us in series {series}", two - one - 2);
        }
    }
}

/// The example of `docs/format.md`.
#[test]
fn bytes_of_a_small_table_are_as_documented() {
    let bytes = table(&[counted(5, 0, 900), counted(5, 10, 900), counted(5, 11, 900), counted(5, 12, 1_800)]);
    #[rustfmt::skip]
    let expected = [
        0x01, 0x00, 0, 0, 0, 15, 0xba, 0xe0, 0x7b, 0xac,
        0x01, 0x80, 0x9a, 0xce, 0x55, 5, 0, 0, 1, 28, 28, 0x2c, 0x35, 0x76, 0x74,
        0x85, 0xa0, 0xe3, 0xd9, 0x0a, 4, 0xa0, 0xf7, 0x36, 0,
        0x00, 1, 0xed, 0x6d, 0, 0xa0, 3, 1, 0xa0, 3, 2, 0xfa, 0x3f, 0xc0, 6, 3, 0x80, 0x0d,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn order_of_recording_does_not_matter() {
    let mut spans: Vec<_> = (0..200).map(|n| (n, counted(n % 3, u64::from(n % 40), u64::from(n * n % 977)))).collect();
    let build = |spans: &[(u32, Counted)]| {
        let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
        for (row, s) in spans {
            builder.record(s.series, s.at, s.latency, *row, u64::from(row % 5));
        }
        builder.finish().expect("small")
    };
    let forward = build(&spans);
    spans.reverse();
    assert_eq!(build(&spans), forward);
}

#[test]
fn band_keeps_the_slowest_the_most_recent_and_one_unlike_them() {
    // One band: 1,048.576 to 1,310.719 us.
    let mut spans: Vec<_> = (0..100).map(|n| counted(1, 0, 1_100 + n)).collect();
    spans[41].at = UnixNanos(DAY + 9 * SECOND);
    spans[80].diversity = 8;
    let slots = read(&table(&spans));
    let rows: Vec<_> = slots.values().flat_map(|slot| slot.exemplars.iter().map(|one| one.row)).collect();
    assert_eq!(rows, [41, 80, 99]);
}

#[test]
fn reader_of_few_series_fetches_their_chunks_alone() {
    let spans: Vec<_> = (0..60_000_u32)
        .map(|n| counted(n % 500, u64::from(n % 30), u64::from(n.wrapping_mul(2_654_435_761) % 5_000_000)))
        .collect();
    let bytes = table(&spans);
    let fetched = RefCell::new(Vec::new());
    let fetch = |range: Range<u32>| {
        fetched.borrow_mut().push(range.clone());
        Ok::<_, Missing>(bytes[range.start as usize..range.end as usize].to_vec())
    };
    let reader = SlotTableReader::open(&fetch).expect("readable");
    assert_eq!(reader.slots(), Some(Slot(DAY / SECOND / 10)..Slot(DAY / SECOND / 10 + 3)));
    let mut count = 0;
    let mut each = |series, _, latency: &mut SlotLatency| {
        assert_eq!(series, 250);
        count += latency.histogram.count();
    };
    reader.read(&fetch, 250..251, Slot::ALL, &mut each).expect("readable");
    assert_eq!(count, 120);
    let sizes: Vec<_> = fetched.borrow().iter().map(|range| range.end - range.start).collect();
    assert!(sizes.len() <= 4 && sizes.iter().sum::<u32>() < 20_000, "{sizes:?} of {}", bytes.len());
}

#[test]
fn reader_of_few_slots_fetches_their_chunks_alone() {
    let spans: Vec<_> = (0..20_000).map(|n| counted(3, n, n * 37 % 90_000)).collect();
    let bytes = table(&spans);
    let all = read(&bytes);
    assert_eq!(all.len(), 2_000);
    let first = DAY / SECOND / 10;
    let wanted = Slot(first + 1_000)..Slot(first + 1_010);
    let fetched = RefCell::new(0);
    let fetch = |range: Range<u32>| {
        *fetched.borrow_mut() += 1;
        Ok::<_, Missing>(bytes[range.start as usize..range.end as usize].to_vec())
    };
    let reader = SlotTableReader::open(&fetch).expect("readable");
    let mut some = Slots::new();
    let mut each = |series, slot, latency: &mut SlotLatency| {
        some.insert((series, slot), latency.clone());
    };
    reader.read(&fetch, 3..4, wanted, &mut each).expect("readable");
    assert_eq!(some.len(), 10);
    assert!(some.iter().all(|(key, slot)| all.get(key) == Some(slot)));
    assert!(fetched.into_inner() <= 4, "header, directory and at most two of {} bytes", bytes.len());
}

#[test]
fn other_version_is_refused_by_number() {
    let mut bytes = table(&[counted(1, 0, 10)]);
    bytes[0] = 2;
    let refused = read_range(&bytes, 0..1, Slot::ALL).expect_err("unknown version");
    assert!(matches!(refused, ReadError::Version { found: 2 }), "{refused}");
}

#[test]
fn widest_slot_fits_into_a_chunk() {
    let mut slot = SlotLatency::default();
    for bucket in (0..Bucket::COUNT as u64).filter_map(Bucket::from_index) {
        slot.histogram.push(bucket, u64::MAX / Bucket::COUNT as u64);
        let rows = 0..3_u32;
        slot.exemplars.extend(rows.map(|row| Exemplar {
            latency: bucket.high(),
            block: u32::MAX,
            row: u32::MAX - row,
        }));
    }
    slot.histogram.set_totals(u128::MAX, 5);
    let mut builder = SlotTableBuilder::new(Resolution::Day);
    builder.add(u32::MAX - 1, Slot(u64::MAX - 1), &slot);
    let mut kept = SlotLatency::default();
    kept.merge(&slot);
    assert_eq!(kept.exemplars.len(), crate::latency::EXEMPLARS_PER_SLOT_MAX);
    let read = read(&builder.finish().expect("one chunk"));
    assert!(read.into_iter().eq([((u32::MAX - 1, Slot(u64::MAX - 1)), kept)]));
}

/// What a table of these spans must hold, by the rule as it is written down.
fn expected_counts(spans: &[Counted]) -> BTreeMap<(u32, Slot), Vec<DurationNanos>> {
    let mut slots = BTreeMap::<_, Vec<_>>::new();
    for span in spans {
        slots.entry((span.series, Resolution::TenSeconds.slot_of(span.at))).or_default().push(span.latency);
    }
    slots
}

proptest! {
    #[test]
    fn table_holds_every_span_and_true_exemplars(spans in spans(0..300)) {
        let slots = read(&table(&spans));
        let expected = expected_counts(&spans);
        prop_assert_eq!(slots.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (slot, mut latencies) in slots.values().zip(expected.into_values()) {
            latencies.sort_unstable();
            let mut histogram = crate::latency::SparseHistogram::default();
            for latency in &latencies {
                histogram.record(*latency);
            }
            prop_assert_eq!(&slot.histogram, &histogram);
            let exemplar_spans: Vec<_> = slot.exemplars.iter().map(|one| spans[one.row as usize].latency).collect();
            prop_assert!(slot.exemplars.iter().zip(&exemplar_spans).all(|(one, ns)| one.latency == *ns));
            prop_assert_eq!(exemplar_spans.iter().max(), latencies.last(), "the slowest to the nanosecond");
            prop_assert!(slot.exemplars.is_sorted_by(|a, b| a < b));
            for band in latencies.chunk_by(|a, b| Bucket::of(*a).band() == Bucket::of(*b).band()) {
                let same = |one: &&Exemplar| Some(one.bucket().band()) == band.first().map(|ns| Bucket::of(*ns).band());
                prop_assert_eq!(slot.exemplars.iter().filter(same).count(), band.len().min(3));
            }
        }
    }

    #[test]
    fn added_slots_come_back_and_ranges_select(spans in spans(0..200), first in 0_u32..6, len in 0_u32..4, from in 0_u64..12) {
        let whole = read(&table(&spans));
        let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
        for ((series, slot), latency) in &whole {
            builder.add(*series, *slot, latency);
        }
        let bytes = builder.finish().expect("small");
        prop_assert_eq!(&read(&bytes), &whole);
        let series = first..first + len;
        let slots = Slot(DAY / SECOND / 10 + from)..Slot(DAY / SECOND / 10 + 9);
        let mut selected = whole;
        selected.retain(|(id, slot), _| series.contains(id) && slots.contains(slot));
        prop_assert_eq!(read_range(&bytes, series, slots).expect("readable"), selected);
    }

    #[test]
    fn chosen_series_are_read_as_if_the_others_were_not_there(spans in spans(0..2_000), chosen in prop::collection::btree_set(0_u32..8, 0..4), from in 0_u64..12) {
        let mut builder = SlotTableBuilder::new(Resolution::Minute);
        for (row, span) in (0..).zip(&spans) {
            builder.record(span.series, span.at, span.latency, row, span.diversity);
        }
        let bytes = builder.finish().expect("small");
        let fetch = |range: Range<u32>| Ok::<_, Missing>(bytes[range.start as usize..range.end as usize].to_vec());
        let (chosen, slots) = (chosen.into_iter().collect::<Vec<u32>>(), Slot(DAY / SECOND / 60 + from / 6)..Slot(u64::MAX));
        let mut selected = Vec::new();
        let reader = SlotTableReader::open(&fetch).expect("readable");
        let mut each = |series, slot, latency: &mut SlotLatency| selected.push(((series, slot), latency.clone()));
        reader.read_chosen(&fetch, &chosen, slots.clone(), &mut each).expect("readable");
        let mut expected = read(&bytes);
        expected.retain(|(series, slot), _| chosen.contains(series) && slots.contains(slot));
        prop_assert_eq!(selected, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn recorded_and_added_slots_are_merged(recorded in spans(0..60), added in spans(0..60)) {
        let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
        for (row, span) in (0..).zip(&recorded) {
            builder.record(span.series, span.at, span.latency, row, span.diversity);
        }
        let mut expected = read(&table(&recorded));
        for ((series, slot), mut latency) in read(&table(&added)) {
            latency.place_in(9);
            builder.add(series, slot, &latency);
            expected.entry((series, slot)).or_default().merge(&latency);
        }
        prop_assert_eq!(read(&builder.finish().expect("small")), expected);
    }

    #[test]
    fn roll_up_by_steps_is_the_roll_up_at_once(one in spans(0..80), two in spans(0..80), three in spans(0..80)) {
        let tables = [table(&one), table(&two), table(&three)];
        let blocks: Vec<_> = (4_u32..).zip(tables.iter().map(Vec::as_slice)).collect();
        let at_once = rolled(&blocks, Resolution::TenMinutes);
        let minutes = [rolled(&blocks[..1], Resolution::Minute), rolled(&blocks[1..], Resolution::Minute)];
        prop_assert_eq!(&rolled(&[(0, &minutes[1]), (0, &minutes[0])], Resolution::TenMinutes), &at_once);
        let slot_of = |span: &Counted| (span.series, Resolution::TenMinutes.slot_of(span.at));
        let slots: BTreeSet<_> = [&one, &two, &three].into_iter().flatten().map(slot_of).collect();
        prop_assert_eq!(read(&at_once).into_keys().collect::<BTreeSet<_>>(), slots);
        let count = |bytes: &[u8]| read(bytes).values().map(|slot| slot.histogram.count()).sum::<u64>();
        prop_assert_eq!(count(&at_once), (one.len() + two.len() + three.len()) as u64);
        for latency in read(&at_once).values() {
            prop_assert!(latency.exemplars.iter().all(|one| latency.histogram.contains(one.bucket())));
            prop_assert!(latency.exemplars.iter().all(|one| (4..7).contains(&one.block)));
            let slowest = latency.histogram.entries().last().map(|entry| entry.0);
            prop_assert_eq!(latency.exemplars.last().map(Exemplar::bucket), slowest);
        }
    }

    #[test]
    fn truncated_or_altered_tables_are_errors(spans in spans(1..120), at in any::<prop::sample::Index>(), bit in 0..8) {
        let bytes = table(&spans);
        let at = at.index(bytes.len());
        prop_assert!(read_range(&bytes[..at], 0..u32::MAX, Slot::ALL).is_err());
        let mut altered = bytes;
        altered[at] ^= 1_u8 << bit;
        prop_assert!(read_range(&altered, 0..u32::MAX, Slot::ALL).is_err());
    }

    /// Behind the checksums too, no bytes make the decoder panic or run on.
    #[test]
    fn chunk_of_any_bytes_ends(bytes in prop::collection::vec(any::<u8>(), 0..300), block in 0..=4_u8, row in 0..=4_u8) {
        let mut reader = ChunkReader::new(&bytes, PlaceWidths { block, row });
        let mut latency = SlotLatency::default();
        let mut slots = 0;
        while let Ok(Some(_)) = reader.next(&mut |series, _| Ok(series % 2 == 0), &mut latency) {
            slots += 1;
        }
        prop_assert!(slots <= bytes.len());
    }

    #[test]
    fn numbers_round_trip(value in any::<u128>(), shift in 0..128, delta in any::<i64>()) {
        let value = value >> shift;
        let mut bytes = Vec::new();
        varint::put(&mut bytes, value);
        prop_assert_eq!(varint::Cursor(&bytes).u128(), Ok(value));
        prop_assert_eq!(varint::Cursor(&bytes).u64().ok(), u64::try_from(value).ok());
        prop_assert_eq!(varint::unzigzag(varint::zigzag(i128::from(delta))), i128::from(delta));
        let value = u32::try_from(value >> 96).expect("32 bits");
        let mut bytes = Vec::new();
        varint::put_fixed(&mut bytes, value, varint::width_of(value));
        prop_assert_eq!(varint::Cursor(&bytes).fixed(varint::width_of(value)), Ok(value));
    }
}
