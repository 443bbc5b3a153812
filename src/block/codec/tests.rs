//! Each form is chosen for what it is made for, and gives back what it was given.

use proptest::prelude::*;

use super::*;

const CONSTANT: u8 = 0;
const PACKED: u8 = 1;
const PLANES: u8 = 2;
const WIDTHS: u8 = 3;

/// Spreads bits without a pattern.
fn scatter(value: u64) -> u64 {
    let mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Form and length of `values`; asserts that they come back, one by one and all at once.
#[track_caller]
fn ints(values: &[u64]) -> (u8, usize) {
    let mut out = Vec::new();
    put_ints(&mut out, values, &mut Packer::new());
    let mut reader = Reader::new(&out);
    let at_once = Ints::read_values(&mut reader.clone(), values.len(), &mut Unpacker::new()).unwrap();
    assert_eq!(at_once, values);
    let read = Ints::read(&mut reader, values.len(), &mut Unpacker::new()).unwrap();
    assert!(reader.is_empty());
    let single: Vec<u64> = (0..values.len()).map(|idx| read.get(idx)).collect();
    assert_eq!(single, values);
    assert_eq!(read.into_values(values.len()), values);
    (out[0], out.len())
}

/// Form and length of `values`; asserts that they come back.
#[track_caller]
fn texts(values: &[&[u8]]) -> (u8, usize) {
    let mut out = Vec::new();
    put_texts(&mut out, values, &Contexts::NONE, &mut Packer::new());
    let read = Texts::read(&mut Reader::new(&out), values.len(), &Contexts::NONE, &mut Unpacker::new()).unwrap();
    for (idx, value) in values.iter().enumerate() {
        let mut text = Vec::new();
        read.write(idx, &mut text).unwrap();
        assert_eq!(text, *value, "text {idx}");
    }
    (out[0], out.len())
}

#[track_caller]
fn texts_of(make: impl Fn(u64) -> String) -> (u8, usize) {
    let values: Vec<String> = (0..1000).map(make).collect();
    let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    texts(&values)
}

#[test]
fn equal_numbers_take_one_value() {
    assert_eq!(ints(&vec![u64::MAX; 4096]), (CONSTANT, 11));
    assert_eq!(ints(&[5]), (CONSTANT, 2));
}

#[test]
fn even_magnitudes_are_packed_at_their_width_above_the_minimum() {
    let values: Vec<u64> = (0..4096).map(|i| (1 << 60) + scatter(i) % 1000).collect();
    let (form, len) = ints(&values);
    assert_eq!(form, PACKED);
    assert!(len <= 4096 * 10 / 8 + 16, "{len}");
}

#[test]
fn whole_microseconds_cost_no_nanoseconds() {
    let values: Vec<u64> = (0..4096).map(|i| 7 + scatter(i) % 1000 * 1000).collect();
    assert!(ints(&values).1 <= 4096 * 10 / 8 + 16);
}

#[test]
fn magnitudes_over_decades_cost_their_own_width() {
    let values: Vec<u64> = (0..4096).map(|i| scatter(i) >> (scatter(i + 9999) % 60)).collect();
    let (form, len) = ints(&values);
    assert_eq!(form, WIDTHS);
    assert!(len < 4096 * 6, "{len}");
}

#[test]
fn repeating_numbers_are_left_to_zstd() {
    let values: Vec<u64> = (0..4096).map(|i| scatter(i % 7) % 1000).collect();
    let (form, len) = ints(&values);
    assert_eq!(form, PLANES);
    assert!(len < 200, "{len}");
}

#[test]
fn texts_find_the_form_of_their_kind() {
    let (bytes, decimal, fixed) = (0, 1, 2);
    let uuid = |i| format!("{:08x}-0000-4000-8000-{:012x}", scatter(i) >> 32, scatter(i + 5000) >> 16);
    let (form, len) = texts_of(uuid);
    assert!(form == fixed && len < 1000 * 10 + 100, "{form} {len}");
    let (form, len) = texts_of(|i| format!("order-{:09}", scatter(i) % 1_000_000_000));
    assert!(form == fixed && len < 1000 * 4, "{form} {len}");
    let (form, len) = texts_of(|i| format!("user-{}", scatter(i) % 100_000));
    assert!(form == decimal && len < 1000 * 3, "{form} {len}");
    let (form, len) = texts_of(|i| format!("10.0.{}.{}:{}", scatter(i) % 250, scatter(i + 77) % 250, i % 3));
    assert!(form == decimal && len < 1000 * 3, "{form} {len}");
    assert_eq!(texts_of(|i| format!("select {}", "x".repeat(usize::try_from(i % 9).unwrap()))).0, bytes);
    // Leading zeros of different lengths are no numbers, and neither is what passes 19 digits.
    assert_eq!(texts(&[b"a01", b"a1"]).0, bytes);
    assert_eq!(texts(&[b"a1", b"a99999999999999999999"]).0, bytes);
}

#[test]
fn codes_that_follow_from_a_context_cost_nothing() {
    let series: Vec<u32> = (0..4096).map(|row| u32::try_from(scatter(row) % 50).unwrap()).collect();
    let contexts = Contexts { series: RowIds { ids: &series, n: 50 }, ..Contexts::NONE };
    let codes: Vec<u64> = series.iter().map(|series| scatter(u64::from(*series)) % 20).collect();
    let mut out = Vec::new();
    put_codes(&mut out, &codes, 20, &contexts, &mut Packer::new());
    assert!(out.len() < 200, "{}", out.len());
    let read = read_codes(&mut Reader::new(&out), 4096, 20, &contexts, &mut Unpacker::new()).unwrap();
    assert_eq!(read.into_values(4096), codes);
}

#[test]
fn a_declared_size_is_not_believed() {
    let mut bomb = Vec::new();
    put_varint(&mut bomb, 1 << 60);
    put_text(&mut bomb, &zstd::bulk::compress(&[0; 1000], 3).unwrap());
    assert!(Reader::new(&bomb).blob(&mut Unpacker::new()).is_err());
    let mut endless = vec![0];
    endless.extend([0, 0]);
    endless.extend([CONSTANT, 0, 0, 0]);
    assert!(Texts::read(&mut Reader::new(&endless), usize::MAX, &Contexts::NONE, &mut Unpacker::new()).is_ok());
}

/// Rows of four traces of 250 spans each: the parent of every span is the one before it, of the first there is none.
fn chains() -> (Vec<u32>, Vec<u32>, Vec<u16>) {
    let traces = (0..1000).map(|row| row / 250).collect();
    let series = (0..1000).map(|row| row % 2).collect();
    let parents = (0..1000).map(|row: u16| if row.is_multiple_of(250) { NO_ROW } else { row - 1 }).collect();
    (traces, series, parents)
}

/// Form and length of `values`, one per row of `chains`; asserts that they come back.
#[track_caller]
fn numbers_in_chains(values: &[u64]) -> (u8, usize) {
    let (traces, series, parents) = chains();
    let contexts = Contexts {
        traces: RowIds { ids: &traces, n: 4 },
        series: RowIds { ids: &series, n: 2 },
        parents: &parents,
        ..Contexts::NONE
    };
    let mut out = Vec::new();
    put_numbers(&mut out, values, &contexts, &mut Packer::new());
    let read = read_numbers(&mut Reader::new(&out), values.len(), &contexts, &mut Unpacker::new()).unwrap();
    assert_eq!(read.into_values(values.len()), values);
    (out[0], out.len())
}

#[test]
fn a_value_of_the_whole_trace_is_stored_once() {
    let (form, len) = numbers_in_chains(&(0..1000).map(|row| scatter(row / 250)).collect::<Vec<_>>());
    assert!(form == 1 && len < 100, "few enough for a list: {form} {len}");
    let (form, len) = numbers_in_chains(&(0..1000).map(|row| scatter(row / 3)).collect::<Vec<_>>());
    assert!(form == 2 && len < 334 * 8 + 200, "{form} {len}");
}

#[test]
fn a_value_that_is_fixed_in_one_series_costs_only_in_the_other() {
    let port = |row| if row % 2 == 0 { 8080 } else { 32_768 + scatter(row) % 28_000 };
    let (form, len) = numbers_in_chains(&(0..1000).map(port).collect::<Vec<_>>());
    assert!(form == 2 && len < 500 * 2 + 100, "{form} {len}");
}

#[test]
fn texts_of_a_few_kinds_cost_their_numbers() {
    let kinds = ["/users/", "/cart/7/items/", "http://shop:8080/v2/orders/"];
    let (form, len) = texts_of(|i| format!("{}{}", kinds[usize::try_from(i % 3).unwrap()], scatter(i) % 100_000));
    assert!(form == 3 && len < 1000 * 17 / 8 + 400, "{form} {len}");
    // A byte that stands for a number, and numbers that are none, are left alone.
    let (form, _) = texts_of(|i| format!("a{}\0{}", i, i % 3));
    assert!(form < 3, "{form}");
    let (_form, len) = texts_of(|i| format!("{}{:07}", kinds[usize::try_from(i % 3).unwrap()], scatter(i) % 10_000));
    assert!(len < 1000 * 8, "{len}");
}

#[test]
fn scopes_follow_from_series_and_the_scope_of_the_parent() {
    let (_, series, parents) = chains();
    let contexts = Contexts { series: RowIds { ids: &series, n: 2 }, parents: &parents, ..Contexts::NONE };
    // Each trace goes back and forth between two instances of its own.
    let scopes: Vec<u64> = (0..1000).map(|row| row / 250 * 2 + row % 2).collect();
    let mut out = Vec::new();
    put_scopes(&mut out, &scopes, &contexts, &mut Packer::new());
    let read = read_scopes(&mut Reader::new(&out), 1000, &contexts, &mut Unpacker::new()).unwrap();
    assert_eq!((read, out[0]), (scopes, 1));
    assert!(out.len() < 80, "{}", out.len());
}

proptest! {
    #[test]
    fn any_numbers_come_back(values in prop::collection::vec(prop_oneof![any::<u64>(), 0..9_u64, Just(u64::MAX)], 1..300)) {
        let _form = ints(&values);
        let mut out = Vec::new();
        put_numbers(&mut out, &values, &Contexts::NONE, &mut Packer::new());
        let read = read_numbers(&mut Reader::new(&out), values.len(), &Contexts::NONE, &mut Unpacker::new()).unwrap();
        prop_assert_eq!(read.into_values(values.len()), values);
    }

    #[test]
    fn any_texts_come_back(values in prop::collection::vec("[a-c0-2]{0,6}|[0-9]{3}|x-[0-9]{1,20}-y|\\PC{0,9}", 1..40)) {
        let _form = texts(&values.iter().map(String::as_bytes).collect::<Vec<_>>());
    }

    #[test]
    fn zigzag_is_undone(value in any::<u64>()) {
        prop_assert_eq!(unzigzag(zigzag(value)), value);
        prop_assert!(zigzag(3_u64.wrapping_neg()) == 5);
    }

    #[test]
    fn anything_may_be_read_as_anything(bytes in prop::collection::vec(any::<u8>(), 0..80), n in 0..5000_usize) {
        let mut unpacker = Unpacker::new();
        let _ints = Ints::read(&mut Reader::new(&bytes), n, &mut unpacker);
        let _numbers = read_numbers(&mut Reader::new(&bytes), n, &Contexts::NONE, &mut unpacker);
        if let Ok(texts) = Texts::read(&mut Reader::new(&bytes), n, &Contexts::NONE, &mut unpacker) {
            let _text = texts.write(n, &mut Vec::new());
        }
    }
}
