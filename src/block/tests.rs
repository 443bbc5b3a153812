//! A block says what was put into it, and damaged ones say that they are.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::codec::Packer;
use super::columns::{FIRST_DYNAMIC, GROUP_ROWS};
use super::encode::encode_with;
use super::header::Header;
use super::samples::{Dice, any_batch, canonical, shop};
use super::*;
use crate::model::{Conventions, DurationNanos, SeriesKey, SpanBatch, SpanId, TraceId, UnixNanos, Value};

const ANY: std::ops::RangeInclusive<DurationNanos> = DurationNanos(0)..=DurationNanos(u64::MAX);

type Stored = Vec<(SectionId, Vec<u8>)>;

fn shared(batches: Vec<SpanBatch>) -> Vec<Arc<SpanBatch>> {
    batches.into_iter().map(Arc::new).collect()
}

fn write(batches: &[Arc<SpanBatch>]) -> (Ordered, Encoded) {
    let ordered = order(batches);
    let encoded = encode(batches, &ordered.rows, UnixNanos(77), &Conventions::default()).unwrap();
    (ordered, encoded)
}

/// The spans of `rows` as texts, straight from the batches.
fn expected(batches: &[Arc<SpanBatch>], rows: &[RowRef]) -> Vec<String> {
    let text = |row: &RowRef| {
        let batch = &batches[row.batch as usize];
        canonical(batch, &batch.spans[row.row as usize])
    };
    rows.iter().map(text).collect()
}

fn read_all(sections: &Stored) -> Result<Vec<String>, BlockError> {
    let block = Block::open(sections)?;
    let rows: Vec<u32> = (0..block.summary().spans).collect();
    let batch = block.spans(sections, &rows)?;
    Ok(batch.spans.iter().map(|span| canonical(&batch, span)).collect())
}

#[track_caller]
fn check_round_trip(batches: &[Arc<SpanBatch>]) {
    let (ordered, encoded) = write(batches);
    let read = read_all(&encoded.sections).unwrap();
    let expected = expected(batches, &ordered.rows);
    assert_eq!(read.len(), expected.len());
    for (row, (read, expected)) in read.iter().zip(&expected).enumerate() {
        assert_eq!(read, expected, "row {row}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_spans_come_back_exactly(batches in prop::collection::vec(any_batch(0..40), 0..3)) {
        check_round_trip(&shared(batches));
    }

    #[test]
    fn spans_with_many_equal_values_come_back_exactly(batch in any_batch(1..6), copies in 50..120_u64) {
        let mut repeated = batch.clone();
        for copy in 1..copies {
            let spans = batch.spans.iter().map(|span| {
                let mut span = *span;
                span.span_id = SpanId(copy.to_be_bytes());
                span
            });
            repeated.spans.extend(spans);
        }
        check_round_trip(&shared(vec![repeated]));
    }

    #[test]
    fn chosen_rows_are_the_same_as_of_the_whole(batch in any_batch(1..40), chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..10)) {
        let batches = shared(vec![batch]);
        let (_, encoded) = write(&batches);
        let whole = read_all(&encoded.sections).unwrap();
        let mut rows: Vec<u32> = chosen.iter().map(|at| u32::try_from(at.index(whole.len())).unwrap()).collect();
        rows.sort_unstable();
        let block = Block::open(&encoded.sections).unwrap();
        let some = block.spans(&encoded.sections, &rows).unwrap();
        let some: Vec<String> = some.spans.iter().map(|span| canonical(&some, span)).collect();
        let expected: Vec<String> = rows.iter().map(|row| whole[*row as usize].clone()).collect();
        prop_assert_eq!(some, expected);
    }

    #[test]
    fn the_skip_index_excludes_nothing_that_is_there(batch in any_batch(1..40)) {
        let batches = shared(vec![batch]);
        let (ordered, encoded) = write(&batches);
        let block = Block::open(&encoded.sections).unwrap();
        let index = block.skip_index(&encoded.sections);
        let check = |owner, rows| {
            for attribute in batches[0].attributes(rows) {
                let text = match attribute.value {
                    Value::String(text) => batches[0].text(text),
                    Value::Nested(_) => b"any",
                    _ => continue,
                };
                assert!(index.may_have_text(owner, batches[0].text(attribute.key), text).unwrap());
            }
        };
        for (row, of) in ordered.rows.iter().enumerate() {
            let span = &batches[0].spans[of.row as usize];
            check(AttributeOwner::Span, span.attributes);
            batches[0].events(span.events).iter().for_each(|event| check(AttributeOwner::Event, event.attributes));
            batches[0].links(span.links).iter().for_each(|link| check(AttributeOwner::Link, link.attributes));
            let series: Vec<bool> = (0..encoded.series.len()).map(|at| at == encoded.row_series[row] as usize).collect();
            prop_assert!(index.groups(Some(&series), span.latency())[row / GROUP_ROWS]);
            let service = &encoded.series[encoded.row_series[row] as usize].service;
            let of_service = index.series_of_services(|count| count.service == **service).unwrap();
            prop_assert!(of_service[encoded.row_series[row] as usize]);
        }
    }

    #[test]
    fn a_damaged_block_never_panics(
        batch in any_batch(1..30),
        section in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
        cut in any::<bool>(),
    ) {
        let (_, mut encoded) = write(&shared(vec![batch]));
        let bytes = &mut section.get_mut(&mut encoded.sections).1;
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        touch_everything(&encoded.sections);
    }
}

/// Whatever comes out, it comes out without a panic.
fn touch_everything(sections: &Stored) {
    let Ok(block) = Block::open(sections) else { return };
    let _spans = read_all(sections);
    let _rows = block.rows_of_trace(sections, TraceId([3; 16]));
    let _series = block.series(sections);
    let _scan = block.scan_latency(sections, &ANY, &mut |_, _, _, _| std::ops::ControlFlow::Continue(()));
    let index = block.skip_index(sections);
    let _text = index.may_have_text(AttributeOwner::Span, b"http.route", b"/");
    let _groups = index.groups(index.series_of_services(|_| true).as_deref(), Some(DurationNanos(7)));
    let _scan = block.scan(sections, |scan| {
        let (_series, _scopes) = (scan.series(), scan.scopes());
        let keys = ["key.0", "key.1", "key.2", "key.3", "http.route", "server.port"];
        let attributes = keys.map(|key| scan.span_attribute(key.as_bytes()));
        for number in 0..=scan.n_groups() {
            let group = scan.group(number);
            let _columns = (group.durations(), group.starts(), group.series(), group.scopes(), group.exceptions());
            let _texts = group.status_messages().map(|texts| texts.dictionary().write(texts.entry(0), &mut Vec::new()));
            let _ids = (group.span_id(0), group.parent_id(0), group.trace_id(0));
            for attribute in attributes.iter().flatten() {
                let Ok(column) = group.attribute(attribute) else { continue };
                for (part, value) in (0..group.n_rows()).filter_map(|row| column.place(row)) {
                    if let Some(AttributeValues::Strings(texts)) = column.parts().get(part) {
                        let _written = texts.dictionary().write(texts.entry(value), &mut Vec::new());
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_column_of_texts_points_into_one_dictionary_of_the_block() {
    let (_, encoded) = write(&shared(shop(GROUP_ROWS + 500, 3)));
    let block = Block::open(&encoded.sections).unwrap();
    let rows: Vec<u32> = (0..block.summary().spans).collect();
    let spans = block.spans(&encoded.sections, &rows).unwrap();
    let mut ids = Vec::new();
    let scanned = block.scan(&encoded.sections, |scan| {
        let route = scan.span_attribute(b"http.route")?;
        for number in 0..scan.n_groups() {
            let group = scan.group(number);
            let column = group.attribute(&route)?;
            for row in 0..group.n_rows() {
                let (part, value) = column.place(row).expect("every span of the shop has a route");
                let AttributeValues::Strings(texts) = &column.parts()[part] else { panic!("a route is a text") };
                let mut text = Vec::new();
                texts.dictionary().write(texts.entry(value), &mut text)?;
                let span = &spans.spans[group.block_row(row) as usize];
                assert_eq!(
                    String::from_utf8(text).ok(),
                    spans.string_attribute(span.attributes, "http.route").map(Into::into)
                );
                ids.push(texts.dictionary().id());
            }
            assert!(group.attribute(&scan.span_attribute(b"no such key")?)?.place(0).is_none());
        }
        Ok(())
    });
    scanned.unwrap();
    ids.dedup();
    assert_eq!((ids.len(), ids[0].is_some()), (1, true), "{ids:?}");
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_realistic_block_is_survived() {
    let (_, encoded) = write(&shared(shop(40, 5)));
    for section in 0..encoded.sections.len() {
        for at in 0..encoded.sections[section].1.len() {
            let mut flipped = encoded.sections.clone();
            flipped[section].1[at] ^= 1 << (at % 8);
            touch_everything(&flipped);
            if at % 8 == 0 {
                flipped[section].1.truncate(at);
                touch_everything(&flipped);
            }
        }
    }
}

#[test]
fn realistic_spans_over_several_row_groups_come_back_exactly() {
    check_round_trip(&shared(shop(GROUP_ROWS * 2 + 100, 1)));
}

#[test]
fn a_block_of_no_spans_opens_and_is_empty() {
    let (_, encoded) = write(&[]);
    let block = Block::open(&encoded.sections).unwrap();
    assert_eq!(block.summary(), &encoded.summary);
    assert!(!block.may_hold(TraceId([1; 16])));
    assert_eq!(block.rows_of_trace(&encoded.sections, TraceId([1; 16])).unwrap(), 0..0);
    assert_eq!(read_all(&encoded.sections).unwrap(), Vec::<String>::new());
}

#[test]
fn the_first_of_equal_keys_stays_and_conflicts_are_counted() {
    let mut first = shop(3, 9).into_iter().find(|batch| !batch.spans.is_empty()).unwrap();
    first.spans.truncate(1);
    let mut other = first.clone();
    other.spans[0].flags = 7;
    let batches = shared(vec![first.clone(), first.clone(), other]);
    let ordered = order(&batches);
    assert_eq!(ordered, Ordered { rows: vec![RowRef { batch: 0, row: 0 }], duplicates: 2, conflicting_duplicates: 1 });
}

#[test]
fn rows_are_in_span_key_order() {
    let batches = shared(shop(2_000, 3));
    let ordered = order(&batches);
    let key = |row: &RowRef| batches[row.batch as usize].spans[row.row as usize].key();
    assert!(ordered.rows.is_sorted_by(|a, b| key(a) < key(b)));
    assert_eq!(ordered.rows.len(), 2_000);
}

#[test]
fn rows_of_a_trace_equal_a_linear_search_and_the_filter_forgets_none() {
    let batches = shared(shop(GROUP_ROWS * 3, 4));
    let (ordered, encoded) = write(&batches);
    let block = Block::open(&encoded.sections).unwrap();
    let traces: Vec<TraceId> =
        ordered.rows.iter().map(|row| batches[row.batch as usize].spans[row.row as usize].trace_id).collect();
    for run in traces.chunk_by(|a, b| a == b) {
        let start = traces.partition_point(|trace| *trace < run[0]);
        let expected = u32::try_from(start).unwrap()..u32::try_from(start + run.len()).unwrap();
        assert!(block.may_hold(run[0]));
        assert_eq!(block.rows_of_trace(&encoded.sections, run[0]).unwrap(), expected);
    }
    let mut dice = Dice::new(8);
    let strangers =
        (0..20_000).map(|_| TraceId((u128::from(dice.next()) << 64 | u128::from(dice.next())).to_be_bytes()));
    let passed = strangers.filter(|trace| block.may_hold(*trace)).count();
    assert!(passed < 20_000 / 60, "{passed} of 20000 strangers pass the filter");
    assert_eq!(block.rows_of_trace(&encoded.sections, TraceId([0xab; 16])).unwrap(), 0..0);
}

#[test]
fn a_trace_larger_than_a_row_group_is_found_whole() {
    let mut batches = shop(GROUP_ROWS * 2 + 500, 6);
    let mut rest = 700;
    for span in batches.iter_mut().flat_map(|batch| &mut batch.spans) {
        // All but 700 spans become one trace in the middle of the others.
        if rest == 0 { span.trace_id = TraceId([0x80; 16]) } else { rest -= 1 }
    }
    let batches = shared(batches);
    let (ordered, encoded) = write(&batches);
    let block = Block::open(&encoded.sections).unwrap();
    let rows = block.rows_of_trace(&encoded.sections, TraceId([0x80; 16])).unwrap();
    assert_eq!(rows.len(), ordered.rows.len() - 700);
    check_round_trip(&batches);
}

#[test]
fn scan_equals_the_latency_of_each_span() {
    let mut spans = shop(GROUP_ROWS + 300, 7);
    for (at, span) in spans.iter_mut().flat_map(|batch| &mut batch.spans).enumerate() {
        match at % 50 {
            0 => span.end_time_unix_nano = UnixNanos(0),
            1 => span.start_time_unix_nano = UnixNanos(0),
            2 => span.end_time_unix_nano = UnixNanos(1),
            3 => span.end_time_unix_nano = UnixNanos(u64::MAX),
            _ => {}
        }
    }
    let batches = shared(spans);
    let (ordered, encoded) = write(&batches);
    let block = Block::open(&encoded.sections).unwrap();
    let series = block.series(&encoded.sections).unwrap();
    assert_eq!(series, encoded.series);
    assert!(series.is_sorted_by(|a, b| a < b));
    let mut scanned = Vec::new();
    let mut each = |row, series: u32, start, latency| {
        scanned.push((row, series, start, latency));
        std::ops::ControlFlow::Continue(())
    };
    block.scan_latency(&encoded.sections, &ANY, &mut each).unwrap();
    let mut direct: Vec<(u32, u32, UnixNanos, DurationNanos)> = Vec::new();
    for (row, place) in (0_u32..).zip(&ordered.rows) {
        let batch = &batches[place.batch as usize];
        let span = &batch.spans[place.row as usize];
        let of_row = encoded.row_series[row as usize];
        assert_eq!(SeriesKey::of(batch, span, &Conventions::default()), series[of_row as usize]);
        direct.extend(span.latency().map(|latency| (row, of_row, span.start_time_unix_nano, latency)));
    }
    assert_eq!(scanned, direct);
}

#[test]
fn the_summary_bounds_and_counts_its_spans() {
    let batches = shared(shop(1_000, 2));
    let (_, encoded) = write(&batches);
    let spans = || batches.iter().flat_map(|batch| &batch.spans);
    let summary = Block::open(&encoded.sections).unwrap().summary().clone();
    assert_eq!(summary, encoded.summary);
    assert_eq!((summary.spans, summary.horizon), (1_000, UnixNanos(77)));
    assert_eq!(Some(summary.min_start), spans().map(|span| span.start_time_unix_nano).min());
    assert_eq!(Some(summary.max_start), spans().map(|span| span.start_time_unix_nano).max());
    assert_eq!(Some(summary.max_index_time), spans().map(|span| span.end_time_unix_nano).max());
    assert_eq!(Some(summary.min_latency), spans().filter_map(crate::model::Span::latency).min());
    assert_eq!(Some(summary.max_latency), spans().filter_map(crate::model::Span::latency).max());
    assert_eq!(summary.services.iter().map(|service| service.spans).sum::<u64>(), 1_000);
    assert!(summary.services.iter().any(|service| service.service == "service-4"));
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let (_, mut encoded) = write(&shared(shop(10, 2)));
    encoded.sections[0].1[4] = 9;
    let error = Block::open(&encoded.sections).unwrap_err();
    assert!(matches!(error, BlockError::UnknownVersion { version: 9, known: 1 }), "{error}");
    encoded.sections[0].1[0] = b'x';
    let error = Block::open(&encoded.sections).unwrap_err();
    assert!(matches!(error, BlockError::Damaged { section: SectionId::HEADER, .. }), "{error}");
}

#[test]
fn a_realistic_span_takes_at_most_45_bytes() {
    let batches = shared(shop(GROUP_ROWS * 4, 11));
    let (ordered, encoded) = write(&batches);
    let header = Header::decode(&encoded.sections[0].1).unwrap();
    let n_spans = ordered.rows.len() as f64;
    let mut by_column = std::collections::BTreeMap::<u16, u32>::new();
    for chunk in header.groups.iter().flatten() {
        *by_column.entry(chunk.column).or_default() += chunk.len;
    }
    for (column, bytes) in by_column {
        let name = if column < FIRST_DYNAMIC { "fixed" } else { "attribute" };
        println!("{name} {column}: {:.3}", f64::from(bytes) / n_spans);
    }
    for (section, bytes) in &encoded.sections {
        println!("section {section}: {} bytes", bytes.len());
    }
    let total: usize = encoded.sections.iter().map(|(_, bytes)| bytes.len()).sum();
    let per_span = total as f64 / n_spans;
    println!("{per_span:.2} bytes per span");
    assert!(per_span <= 45.0, "{per_span:.2} bytes per span");
}

/// Lists are made as long as these numbers say before a byte of theirs is read: 240 million spans, or 4 billion entries
/// of a dictionary whose texts are all the same, once took gigabytes for a block of a few kilobytes.
#[test]
fn sec_21_a_header_that_claims_more_than_a_block_holds_is_refused() {
    let (_, encoded) = write(&shared(shop(2_000, 5)));
    let header = || Header::decode(&encoded.sections[0].1).unwrap();
    let refused = |header: Header| {
        let error = Header::decode(&header.encode(&mut Packer::new())).unwrap_err();
        assert!(matches!(error, BlockError::Damaged { section: SectionId::HEADER, .. }), "{error}");
    };
    let mut many_spans = header();
    many_spans.summary.spans = u32::try_from(crate::limits::BLOCK_SPANS_MAX).unwrap() + 1;
    many_spans.fences = vec![TraceId([1; 16]); 17];
    many_spans.groups = vec![Vec::new(); 17];
    refused(many_spans);
    let mut many_entries = header();
    many_entries.dictionaries[0].n_entries = u32::MAX;
    refused(many_entries);
}

/// As `fuzz/src/block.rs` reads sections: each behind these bytes and its number.
const SECTION: &[u8; 4] = b"\xfa\xce\xb1\x0c";

fn seed(batches: Vec<SpanBatch>, packer: Packer) -> Vec<(SectionId, Vec<u8>)> {
    let batches = shared(batches);
    encode_with(&batches, &order(&batches).rows, UnixNanos(77), &Conventions::default(), packer).unwrap().sections
}

/// Blocks to begin fuzzing with; `UPDATE_SEEDS=1` writes them.
#[test]
fn blocks_for_fuzzing_are_whole_and_are_written_when_asked_for() {
    let mut runner = TestRunner::deterministic();
    let mut any = |n| any_batch(n..=n).new_tree(&mut runner).unwrap().current();
    let mut blocks = vec![("empty", seed(Vec::new(), Packer::idle())), ("packed", seed(shop(40, 1), Packer::new()))];
    blocks.push(("shop", seed(shop(60, 2), Packer::idle())));
    blocks.push(("shop-of-one-trace", seed(shop(3, 3), Packer::idle())));
    for (name, n) in [("any-1", 1), ("any-2", 2), ("any-5", 5), ("any-20", 20)] {
        blocks.push((name, seed(vec![any(n), any(n)], Packer::idle())));
    }
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/block");
    for (name, sections) in blocks {
        let block = Block::open(&sections).unwrap();
        let rows: Vec<u32> = (0..block.summary().spans).collect();
        assert_eq!(block.spans(&sections, &rows).unwrap().spans.len(), rows.len(), "{name}");
        let with_number = |(id, bytes): &(SectionId, Vec<u8>)| [SECTION, id.0.to_be_bytes().as_slice(), bytes].concat();
        let bytes: Vec<u8> = sections.iter().flat_map(with_number).collect();
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

#[test]
fn the_skip_index_excludes_most_of_what_is_not_there() {
    let batches = shared(shop(3 * GROUP_ROWS, 5));
    let (ordered, encoded) = write(&batches);
    let block = Block::open(&encoded.sections).unwrap();
    let index = block.skip_index(&encoded.sections);
    let seems_there = |n: &u32| index.may_have_text(AttributeOwner::Span, b"http.route", &n.to_be_bytes()).unwrap();
    let n_wrong = (0..10_000).filter(seems_there).count();
    assert!(n_wrong < 200, "{n_wrong} of 10,000 texts that nobody sent seem to be there");
    assert!(!index.may_have_text(AttributeOwner::Event, b"http.route", b"/").unwrap(), "events have no such key");

    let latency_of = |row: &RowRef| batches[row.batch as usize].spans[row.row as usize].latency();
    for wanted in 0..encoded.series.len() {
        let series: Vec<bool> = (0..encoded.series.len()).map(|at| at == wanted).collect();
        let rows = ordered.rows.chunks(GROUP_ROWS).zip(encoded.row_series.chunks(GROUP_ROWS)).enumerate();
        for (group, (rows, of_rows)) in rows {
            let own = rows.iter().zip(of_rows).filter(|(_, series)| **series as usize == wanted);
            let longest = own.filter_map(|(row, _)| latency_of(row)).max();
            let may_last = |nanos: u64| index.groups(Some(&series), Some(DurationNanos(nanos)))[group];
            assert_eq!(may_last(0), longest.is_some());
            if let Some(longest) = longest {
                assert!(may_last(longest.0));
                assert!(!may_last(longest.0 + longest.0 / 16), "a longer one than {longest:?}");
            }
        }
    }
}

#[test]
fn a_block_without_a_skip_index_is_passed_by_for_nothing() {
    let (_, mut encoded) = write(&shared(shop(200, 5)));
    let section = encoded.sections.iter_mut().find(|(section, _)| *section == SectionId::SKIP).unwrap();
    section.1.clear();
    let block = Block::open(&encoded.sections).unwrap();
    let index = block.skip_index(&encoded.sections);
    assert!(index.may_have_text(AttributeOwner::Span, b"http.route", b"nobody sent this").unwrap());
    assert_eq!(index.groups(None, Some(DurationNanos(u64::MAX))), [true]);
    assert!(index.series_of_services(|_| true).is_none());
}

#[test]
fn a_block_with_too_many_texts_is_passed_by_for_none_of_them() {
    let mut batch = SpanBatch::default();
    let key = batch.push_bytes(b"key").unwrap();
    // Each has as many texts as a span may have.
    for span in 0..260_u64 {
        let start = u32::try_from(batch.attributes.len()).unwrap();
        for no in 0..1_024_u64 {
            let text = batch.push_bytes(&(span * 1_024 + no).to_be_bytes()).unwrap();
            batch.attributes.push(crate::model::Attribute { key, value: Value::String(text) });
        }
        let span_id = SpanId((span + 1).to_be_bytes());
        let attributes = crate::model::Rows { start, len: 1_024 };
        batch.spans.push(crate::model::Span { span_id, attributes, ..crate::model::Span::default() });
    }
    let (_, encoded) = write(&shared(vec![batch]));
    let block = Block::open(&encoded.sections).unwrap();
    let seems_there =
        |text: &[u8]| block.skip_index(&encoded.sections).may_have_text(AttributeOwner::Span, b"key", text);
    assert!(seems_there(&265_000_u64.to_be_bytes()).unwrap() && seems_there(b"nobody sent this").unwrap());
    let section = encoded.sections.iter().find(|(section, _)| *section == SectionId::SKIP).unwrap();
    assert!(section.1.len() < 256, "it takes no room either");
}
