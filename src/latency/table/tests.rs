//! Tables: round trips, what is fetched, how small they are, and damage.

use super::chunk::{PlaceWidths, Run, RunReader, SlotReader};
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
    let series = SeriesWanted::Within(series);
    let mut each = |series, slot, latency: &mut SlotLatency| {
        assert!(read.insert((series, slot), latency.clone()).is_none(), "slots come once");
    };
    reader.read(&fetch, &series, slots, Take::Exemplars(&mut each))?;
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
        reader.read(&fetch, &SeriesWanted::ALL, Slot::ALL, Take::Exemplars(&mut merge)).expect("readable");
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
fn lone_spans_take_at_most_8_bytes_each_with_their_exemplars() {
    // A block of 64 Ki rows has rows of two bytes; 41 and 2,663 are anything but round.
    for micros in [3, 900, 40_000, 250_000] {
        let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
        for n in 0..5_000_u32 {
            let latency = DurationNanos(micros * 1_000 + u64::from(n) * micros * 41);
            builder.record(n, UnixNanos(DAY), latency, n.wrapping_mul(2_663) % 65_536, 0);
        }
        let len = builder.finish().expect("small").len();
        assert!(len <= 5_000 * 8, "{len} bytes for 5,000 spans of {micros} us and more");
    }
}

/// The example of `docs/format.md`.
#[test]
fn bytes_of_a_small_table_are_as_documented() {
    let bytes = table(&[counted(5, 0, 900), counted(5, 10, 900), counted(5, 11, 900), counted(5, 12, 1_800)]);
    #[rustfmt::skip]
    let expected = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x1b, 0x0b, 0x03, 0x3b, 0x75,
        0x01, 0x80, 0x9a, 0xce, 0x55, 0x05, 0x00, 0x00, 0x01,
        0x08, 0x08, 0x81, 0x8a, 0x24, 0x32,
        0x0b, 0x0b, 0x6b, 0xc0, 0x4d, 0xbf,
        0x0d, 0x0d, 0x6c, 0xdc, 0x36, 0xc2,
        0x05, 0x01, 0x0b, 0x0d, 0x00, 0x00, 0x00, 0x02,
        0xba, 0x1b, 0xa0, 0x03, 0xbb, 0x1b, 0x00, 0xfe, 0x0f, 0x80, 0x0d,
        0x01, 0x00, 0x06, 0xc1, 0x06, 0x01, 0xc0, 0x06, 0x00, 0x02, 0x81, 0x0d, 0x03,
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
    reader.read(&fetch, &SeriesWanted::Within(250..251), Slot::ALL, Take::Exemplars(&mut each)).expect("readable");
    assert_eq!(count, 120);
    let sizes: Vec<_> = fetched.borrow().iter().map(|range| range.end - range.start).collect();
    assert!(sizes.len() <= 5 && sizes.iter().sum::<u32>() < 20_000, "{sizes:?} of {}", bytes.len());
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
    reader.read(&fetch, &SeriesWanted::Chosen(&[3]), wanted, Take::Exemplars(&mut each)).expect("readable");
    assert_eq!(some.len(), 10);
    assert!(some.iter().all(|(key, slot)| all.get(key) == Some(slot)));
    assert!(fetched.into_inner() <= 5, "header, directory and three columns of {} bytes", bytes.len());
}

#[test]
fn other_version_is_refused_by_number() {
    let mut bytes = table(&[counted(1, 0, 10)]);
    bytes[0] = 3;
    let refused = read_range(&bytes, 0..1, Slot::ALL).expect_err("unknown version");
    assert!(matches!(refused, ReadError::Version { found: 3 }), "{refused}");
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
        let wanted = SeriesWanted::Chosen(&chosen);
        reader.read(&fetch, &wanted, slots.clone(), Take::Exemplars(&mut each)).expect("readable");
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

    /// Behind the checksums too, no bytes make the decoders panic or run on.
    #[test]
    fn columns_of_any_bytes_end(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        exemplars in prop::collection::vec(any::<u8>(), 0..300),
        (block, row) in (0..=4_u8, 0..=4_u8),
        count in 1..500_u64,
    ) {
        let mut runs = RunReader::new(varint::Cursor(&bytes), Slot(DAY));
        let (mut run, mut slots) = (Run::default(), 0);
        while let Ok(true) = runs.next(&mut run) {
            slots += run.slots.len();
        }
        prop_assert!(slots <= bytes.len());
        let (widths, exemplars) = (PlaceWidths { block, row }, Some(varint::Cursor(&exemplars)));
        let mut reader = SlotReader { widths, buckets: varint::Cursor(&bytes), exemplars };
        let (mut latency, mut slots) = (SlotLatency::default(), 0);
        while reader.read(count, &mut latency).is_ok() {
            slots += 1;
        }
        prop_assert!(slots <= bytes.len());
    }

    /// What is taken of a table is the same, however little of it.
    #[test]
    fn counts_and_histograms_alone_are_those_of_the_whole(spans in spans(0..300), at in 0..12_u64, n in 0..12_u64) {
        let bytes = table(&spans);
        let fetch = |range: Range<u32>| Ok::<_, Missing>(bytes[range.start as usize..range.end as usize].to_vec());
        let first = DAY / SECOND / 10 + at;
        let (chosen, slots) = ([0, 2, 3, 7], Slot(first)..Slot(first + n));
        let whole = read_range(&bytes, 0..u32::MAX, slots.clone()).expect("readable");
        let whole: Slots = whole.into_iter().filter(|((series, _), _)| chosen.contains(series)).collect();
        let (reader, wanted) = (SlotTableReader::open(&fetch).expect("readable"), SeriesWanted::Chosen(&chosen));
        let mut counts = BTreeMap::new();
        let mut each = |series, some: &[(Slot, u64)]| {
            counts.extend(some.iter().map(|(slot, count)| ((series, *slot), *count)));
        };
        reader.read(&fetch, &wanted, slots.clone(), Take::Counts(&mut each)).expect("readable");
        let expected = whole.iter().map(|(key, latency)| (*key, latency.histogram.count()));
        prop_assert!(counts.into_iter().eq(expected));
        let mut histograms = BTreeMap::new();
        let mut each = |series, slot, latency: &mut SlotLatency| {
            assert!(latency.exemplars.is_empty());
            histograms.insert((series, slot), latency.histogram.clone());
        };
        reader.read(&fetch, &wanted, slots, Take::Histograms(&mut each)).expect("readable");
        prop_assert!(histograms.into_iter().eq(whole.into_iter().map(|(key, latency)| (key, latency.histogram))));
    }

    #[test]
    fn numbers_round_trip(value in any::<u128>(), shift in 0..128) {
        let value = value >> shift;
        let mut bytes = Vec::new();
        varint::put(&mut bytes, value);
        prop_assert_eq!(varint::Cursor(&bytes).u128(), Ok(value));
        prop_assert_eq!(varint::Cursor(&bytes).u64().ok(), u64::try_from(value).ok());
        for behind in 0..5 {
            let bytes = [bytes.as_slice(), &vec![0x55; behind]].concat();
            let mut rest = varint::Cursor(&bytes);
            prop_assert_eq!(rest.u64_of_any_length().ok(), u64::try_from(value).ok());
            prop_assert!(u64::try_from(value).is_err() || rest.0.len() == behind);
        }
        let value = u32::try_from(value >> 96).expect("32 bits");
        let mut bytes = Vec::new();
        varint::put_fixed(&mut bytes, value, varint::width_of(value));
        prop_assert_eq!(varint::Cursor(&bytes).fixed(varint::width_of(value)), Ok(value));
    }
}
