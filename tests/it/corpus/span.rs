//! BI-019 to BI-031: times and numbers.

use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::*;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

fn timed(id: &'static str, expect: Expect, times: impl Fn(u64) -> (u64, u64) + 'static) -> Case {
    Case::among(id, expect, move |span| (span.start_time_unix_nano, span.end_time_unix_nano) = times(now().0))
}

pub(super) fn cases() -> Vec<Case> {
    let missing = || Expect::Warned(&["missing_time=1"]);
    let mut cases = vec![
        timed("BI-019", Expect::Warned(&["negative_duration=1"]), |now| (now, now - 1)).looking(|span| {
            let time = |key: &str| -> u64 { span[key].as_str().expect("a string").parse().expect("a number") };
            assert_eq!(time("startTimeUnixNano"), time("endTimeUnixNano") + 1, "originals are kept");
        }),
        timed("BI-020", Expect::Ok, |now| (now, now)),
        timed("BI-021 start", missing(), |now| (0, now)),
        timed("BI-021 end", missing(), |now| (now, 0)),
        timed("BI-021 both", missing(), |_| (0, 0)),
        timed("BI-022", missing(), |_| (u64::MAX, 0))
            .looking(|span| assert_eq!(span["startTimeUnixNano"], u64::MAX.to_string())),
        timed("BI-023", Expect::Ok, |_| ((1 << 63) - 1, 1 << 63))
            .looking(|span| assert_eq!(span["endTimeUnixNano"], (1_u64 << 63).to_string())),
        timed("BI-024 1000 s", Expect::Ok, |now| (now + 1_000 * SECOND, now + 1_001 * SECOND)),
        timed("BI-024 1 year", Expect::Ok, |now| (now + 365 * DAY, now + 365 * DAY + 1)),
        timed("BI-024 500 years", Expect::Ok, |_| (17_000_000_000 * SECOND, 17_000_000_001 * SECOND)),
        timed("BI-025", Expect::Partial(1, "outside_retention"), |now| (now - 8 * DAY, now - 7 * DAY - SECOND)),
        timed("BI-026", Expect::Ok, |now| (now - 30 * DAY, now)),
        Case::among("BI-027", Expect::Ok, |span| {
            let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
            span.events =
                [start - 1, end + 1, 0].map(|time_unix_nano| Event { time_unix_nano, ..Event::default() }).into();
        })
        .looking(|span| assert_eq!(span["events"].as_array().map(Vec::len), Some(3))),
        Case::among("BI-029", Expect::Ok, |span| span.status = Some(Status { code: 7, message: String::new() }))
            .looking(|span| assert_eq!(span["status"]["code"], 7)),
        Case::among("BI-030", Expect::Warned(&["limit_applied=1"]), |span| {
            span.dropped_events_count = u32::MAX;
            span.events = vec![Event::default(); 1_025];
        })
        .looking(|span| assert_eq!(span["droppedEventsCount"], u32::MAX)),
        Case::among("BI-031", Expect::Ok, |span| {
            use any_value::Value::{DoubleValue, IntValue};
            span.attributes = vec![attribute("min", IntValue(i64::MIN)), attribute("max", IntValue(i64::MAX))];
            span.attributes.push(attribute("zero", DoubleValue(-0.0)));
            span.attributes.push(attribute("tiny", DoubleValue(f64::MIN_POSITIVE / 2.0)));
        })
        .looking(|span| {
            let value = |at: usize| &span["attributes"][at]["value"];
            assert_eq!(value(0)["intValue"], i64::MIN.to_string());
            assert_eq!(value(1)["intValue"], i64::MAX.to_string());
            let double = |at: usize| value(at)["doubleValue"].as_f64().expect("a number").to_bits();
            assert_eq!((double(2), double(3)), ((-0.0_f64).to_bits(), (f64::MIN_POSITIVE / 2.0).to_bits()));
        }),
        // The JSON of these is tested with BI-081: serde writes no names for them.
        Case::among("BI-031 no numbers", Expect::Ok, |span| {
            let double = |number| attribute("d", any_value::Value::DoubleValue(number));
            span.attributes = vec![double(f64::NAN)];
            span.events = vec![
                Event { attributes: vec![double(f64::INFINITY)], ..Event::default() },
                Event { attributes: vec![double(f64::NEG_INFINITY)], ..Event::default() },
            ];
        })
        .without_json()
        .looking(|span| {
            assert_eq!(span["attributes"][0]["value"]["doubleValue"], "NaN");
            let infinite = |at: usize| &span["events"][at]["attributes"][0]["value"]["doubleValue"];
            assert_eq!((infinite(0), infinite(1)), (&"Infinity".into(), &"-Infinity".into()));
        }),
    ];
    for kind in [6, 99, -1] {
        cases.push(Case::among("BI-028", Expect::Ok, move |span| span.kind = kind));
    }
    cases
}
