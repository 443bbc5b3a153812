//! What a block can be passed by for, unread.

use crate::block::{Block, encode, order};
use crate::model::samples::{Sample, batch};
use crate::model::{Conventions, DurationNanos, TimeRange, UnixNanos};
use crate::query::traceql::{Filter, RowScan, ServiceChoice, bounds};

const MAX: u64 = u64::MAX;

#[track_caller]
fn check(filter: &str, expected: Option<(u64, u64)>) {
    let filter: Filter = filter.parse().unwrap();
    let range = bounds::latencies(&filter.root);
    let found = (!range.is_empty()).then_some((range.start().0, range.end().0));
    assert_eq!(found, expected, "{filter}");
}

#[test]
fn latencies_outside_of_which_nothing_is_found() {
    check("duration > 5ns", Some((5, MAX)));
    check("5ns < duration", Some((5, MAX)));
    check("duration >= 5ns && duration < 9ns", Some((5, 9)));
    check("9ns > duration", Some((0, 9)));
    check("duration = 7ns", Some((7, 7)));
    check("duration != 7ns", Some((0, MAX)));
    check("duration < 0", Some((0, 0)));
    check("duration < -1", None);
    check("duration = -1", None);
    check("duration > -1", Some((0, MAX)));
    check("duration > 9ns && duration < 5ns", None);
    check("duration = 7ns || duration > 9ns", Some((7, MAX)));
    check("duration = 7ns || (duration > 9ns && duration < 5ns)", Some((7, 7)));
    check("duration = 7ns || .a = 1", Some((0, MAX)));
    check("(.a = 1 && duration = 7ns) || duration = 9ns", Some((7, 9)));
    check("duration = maxInt", Some((i64::MAX.cast_unsigned(), MAX)));
    check("duration <= maxInt", Some((0, MAX)));
    check("!(duration = 7ns)", Some((0, MAX)));
    check("duration > 5.5", Some((0, MAX)));
    check("duration * 2 > 5ns", Some((0, MAX)));
    check("duration > .a", Some((0, MAX)));
}

#[test]
fn a_service_that_every_span_must_have() {
    let service = |text: &str| bounds::service(&text.parse::<Filter>().unwrap().root).map(str::to_owned);
    assert_eq!(service("resource.service.name = \"a\"").as_deref(), Some("a"));
    assert_eq!(service(".x = 1 && \"a\" = resource.service.name").as_deref(), Some("a"));
    for text in [
        ".service.name = \"a\"",
        "resource.service.name != \"a\"",
        "resource.service.name = \"\"",
        "resource.service.name = \"a\" || .x = 1",
        "!(resource.service.name = \"a\")",
    ] {
        assert_eq!(service(text), None, "{text}");
    }
}

#[test]
fn a_block_says_what_it_has_not() {
    let sample = |service, start, duration| Sample { service, trace: 1, span: start, start, duration };
    let batches = [std::sync::Arc::new(batch(&[sample("a", 100, 10), sample("b", 200, 30)]))];
    let sections = encode(&batches, &order(&batches).rows, UnixNanos(200), &Conventions::default()).unwrap().sections;
    let block = Block::open(&sections).unwrap();
    let may = |wanted: &RowScan| wanted.may_be_in(block.summary());
    let filtered = |text: &str| may(&RowScan { filter: Some(text.parse().unwrap()), ..RowScan::all() });
    assert!(may(&RowScan::all()));
    assert!(filtered("duration >= 30ns") && !filtered("duration > 40ns") && !filtered("duration < 9ns"));
    assert!(filtered("resource.service.name = \"b\"") && !filtered("resource.service.name = \"c\""));
    let of = |name: &str| RowScan {
        service: Some(ServiceChoice { name: name.to_owned(), namespace: None }),
        ..RowScan::all()
    };
    assert!(may(&of("a")) && !may(&of("c")));
    let during =
        |start, end| RowScan { range: TimeRange { start: UnixNanos(start), end: UnixNanos(end) }, ..RowScan::all() };
    assert!(may(&during(200, 201)) && !may(&during(201, 300)) && !may(&during(0, 100)));
    let long = RowScan { latencies: DurationNanos(31)..=DurationNanos(99), ..RowScan::all() };
    assert!(!may(&long));
}
