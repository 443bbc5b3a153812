//! BI-032 to BI-055: strings, attributes, nesting.

use opentelemetry_proto::tonic::common::v1::{ArrayValue, EntityRef};
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::*;

const CUT: usize = 64 * 1024;

fn with_service(id: &'static str, expect: Expect, attributes: Vec<KeyValue>) -> Case {
    let body = move |run: &Run| {
        let mut request = request(vec![run.span(1)]);
        request.resource_spans[0].resource.as_mut().expect("a resource").attributes.clone_from(&attributes);
        request.encode_to_vec()
    };
    Case::new(id, body, expect, 1)
}

/// `depth` arrays or lists of pairs around an empty value, as the value of an attribute.
fn nested(depth: usize, pairs: impl Fn(usize) -> bool) -> Vec<u8> {
    // From the inside out, written backwards: the length of everything inside is known at each step.
    let mut reversed: Vec<u8> = Vec::new();
    let prepend = |reversed: &mut Vec<u8>, number: u32| {
        let mut head = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut head);
        prost::encoding::encode_varint(reversed.len() as u64, &mut head);
        reversed.extend(head.iter().rev());
    };
    for level in 0..depth {
        if pairs(level) {
            // KeyValueList { values: [KeyValue { value }] }
            for number in [2, 1, 6] {
                prepend(&mut reversed, number);
            }
        } else {
            for number in [1, 5] {
                prepend(&mut reversed, number);
            }
        }
    }
    reversed.reverse();
    field(9, &[field(1, b"deep"), field(2, &reversed)].concat())
}

/// The same in JSON.
fn nested_json(run: &Run, depth: usize) -> String {
    let value = format!("{}{{}}{}", r#"{"arrayValue":{"values":["#.repeat(depth), "]}}".repeat(depth));
    json::span_with(run, &format!(r#""attributes":[{{"key":"deep","value":{value}}}]"#))
}

fn deep(id: &'static str, expect: Expect, depth: usize, json: bool) -> Vec<Case> {
    let shapes: [fn(usize) -> bool; 3] = [|_| false, |_| true, |level| level % 2 == 0];
    let mut cases: Vec<Case> =
        shapes.map(|shape| Case::raw_among(id, expect.clone(), move || nested(depth, shape))).into();
    if json {
        let text = Box::new(move |run: &Run| nested_json(run, depth));
        cases.push(Case { id, body: None, json: AsJson::Text(text), expect, stored: 1, look: None });
    }
    cases
}

fn strings() -> Vec<Case> {
    let long = |n: usize| "\u{20ac}".repeat(n);
    vec![
        Case::raw_among("BI-032 name", Expect::Warned(&["invalid_utf8=1"]), || field(5, b"caf\xe9"))
            .looking(|span| assert_eq!(span["name"], "caf\u{fffd}")),
        Case::raw_among("BI-032 value", Expect::Warned(&["invalid_utf8=1"]), || {
            field(9, &[field(1, b"k"), field(2, &field(1, b"caf\xe9"))].concat())
        })
        .looking(|span| assert_eq!(span["attributes"][0]["value"]["stringValue"], "caf\u{fffd}")),
        Case::raw_among("BI-032 tracestate", Expect::Warned(&["invalid_utf8=1"]), || field(3, b"a=\xff")),
        Case::among("BI-033", Expect::Ok, |span| {
            span.name = "a\0b\r\n\u{1b}[31m\u{7f}".into();
            span.attributes = vec![text("k", "a\0b\r\n\u{1b}\u{7f}")];
        })
        .looking(|span| assert_eq!(span["name"], "a\0b\r\n\u{1b}[31m\u{7f}")),
        Case::among("BI-035", Expect::Ok, |span| span.name.clear()),
        Case::among("BI-036 name", Expect::Warned(&["truncated=1"]), move |span| span.name = long(350_000))
            .looking(|span| assert_eq!(span["name"].as_str().map(str::len), Some(CUT - 1), "cut on a character")),
        Case::among("BI-036 key", Expect::Warned(&["truncated=1"]), |span| {
            span.attributes = vec![text(&"k".repeat(1 << 20), "v")];
        })
        .looking(|span| assert_eq!(span["attributes"][0]["key"].as_str().map(str::len), Some(CUT))),
        with_service(
            "BI-036 service",
            Expect::Warned(&["truncated=1"]),
            vec![text("service.name", &"s".repeat(1 << 20))],
        ),
        Case::among("BI-050", Expect::Ok, |span| span.attributes = vec![text("k", &"v".repeat(CUT))]).looking(|span| {
            assert_eq!(span["attributes"][0]["value"]["stringValue"].as_str().map(str::len), Some(CUT));
        }),
        Case::among("BI-051", Expect::Warned(&["truncated=1"]), |span| {
            span.attributes = vec![text("k", &"v".repeat(1 << 20))];
        })
        .looking(|span| assert_eq!(span["attributes"][0]["value"]["stringValue"].as_str().map(str::len), Some(CUT))),
        Case::among("BI-052", Expect::Warned(&["truncated"]), |span| {
            span.attributes = (0..40).map(|n| text(&format!("k{n}"), &"x".repeat(50 * 1_024))).collect();
        }),
        Case::among("BI-053", Expect::Partial(1, "span_too_large"), |span| {
            let attributes = (0..128).map(|n| text(&format!("key-{n:016}"), "")).collect();
            span.events = vec![Event { attributes, ..Event::default() }; 1_024];
        }),
    ]
}

fn attributes() -> Vec<Case> {
    use any_value::Value::{ArrayValue as Array, IntValue};
    vec![
        Case::among("BI-040", Expect::Warned(&["empty_key=1"]), |span| {
            span.attributes = vec![text("", "v"), text("a", "")];
        })
        .looking(|span| assert_eq!(span["attributes"].as_array().map(Vec::len), Some(1))),
        Case::among("BI-041", Expect::Warned(&["limit_applied=8976"]), |span| {
            span.attributes = (0..10_000).map(|n| text(&format!("key{n}"), "")).collect();
        })
        .looking(|span| {
            assert_eq!(span["attributes"].as_array().map(Vec::len), Some(1_024));
            assert_eq!(span["droppedAttributesCount"], 8_976);
        }),
        Case::among("BI-042", Expect::Warned(&["duplicate_key=2"]), |span| {
            span.attributes = vec![text("a", "1"), text("a", "2"), attribute("a", IntValue(3))];
        })
        .looking(|span| assert_eq!(span["attributes"].as_array().map(Vec::len), Some(3), "all are kept")),
        Case::among("BI-043", Expect::Ok, |span| {
            let values = vec![AnyValue { value: Some(IntValue(1)) }, AnyValue { value: None }];
            span.attributes = vec![
                KeyValue { key: "none".to_owned(), ..KeyValue::default() },
                KeyValue { key: "empty".to_owned(), value: Some(AnyValue { value: None }), ..KeyValue::default() },
                attribute("mixed", Array(ArrayValue { values })),
            ];
        })
        .looking(|span| {
            assert_eq!(span["attributes"].as_array().map(Vec::len), Some(3));
            assert_eq!(span["attributes"][2]["value"]["arrayValue"]["values"].as_array().map(Vec::len), Some(2));
        }),
        Case::raw_among("BI-044", Expect::Ok, || field(9, &[field(1, b"k"), field(2, b"\x0a\x01a\x18\x05")].concat()))
            .looking(|span| assert_eq!(span["attributes"][0]["value"]["intValue"], "5")),
        Case::raw_among("BI-045", Expect::Warned(&["strindex=1"]), || {
            field(9, &[field(1, b"k"), field(2, b"\x40\x05")].concat())
        }),
    ]
}

fn resources() -> Vec<Case> {
    use any_value::Value::{ArrayValue as Array, IntValue, KvlistValue};
    let mut cases = vec![
        with_service("BI-037 none", Expect::Ok, vec![]),
        with_service("BI-037 empty", Expect::Ok, vec![text("service.name", "")]),
        Case::new(
            "BI-037 no resource",
            |run| {
                let mut request = request(vec![run.span(1)]);
                request.resource_spans[0].resource = None;
                request.encode_to_vec()
            },
            Expect::Ok,
            1,
        ),
        with_service(
            "BI-042 service",
            Expect::Warned(&["duplicate_key=1"]),
            vec![text("service.name", "a"), text("service.name", "b")],
        ),
        Case::new(
            "BI-054",
            |run| {
                let mut request = request(vec![run.span(1)]);
                let reference = |kind: &str| EntityRef {
                    r#type: kind.to_owned(),
                    id_keys: vec!["gone".to_owned()],
                    ..EntityRef::default()
                };
                request.resource_spans[0].resource.as_mut().expect("one").entity_refs =
                    vec![reference("host"), reference("")];
                request.encode_to_vec()
            },
            Expect::Ok,
            1,
        ),
        Case::new(
            "BI-055",
            |run| {
                let mut request = request(vec![run.span(1)]);
                request.resource_spans[0].schema_url = "javascript:alert(1)".into();
                request.resource_spans[0].scope_spans[0].schema_url = "no URL".into();
                request.encode_to_vec()
            },
            Expect::Ok,
            1,
        ),
    ];
    let no_strings = [
        IntValue(1),
        Array(ArrayValue::default()),
        KvlistValue(opentelemetry_proto::tonic::common::v1::KeyValueList::default()),
    ];
    for value in no_strings {
        cases.push(with_service(
            "BI-038",
            Expect::Warned(&["service_name_type=1"]),
            vec![attribute("service.name", value)],
        ));
    }
    for name in ["__overflow__", "../../etc", "<script>", "{a=\"b\"}", "*"] {
        cases.push(with_service("BI-039", Expect::Ok, vec![text("service.name", name)]));
    }
    cases
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [strings(), attributes(), resources()].into_iter().flatten().collect();
    for depth in [31, 32, 47, 48, 63, 64] {
        cases.extend(deep("BI-046", Expect::Ok, depth, true));
    }
    for depth in [65, 100, 1_000] {
        cases.extend(deep("BI-047", Expect::Warned(&["depth=1"]), depth, true));
    }
    cases.extend(deep("BI-048", Expect::Warned(&["depth=1"]), 100_000, false));
    cases.extend(deep("BI-049", Expect::Warned(&["depth=1"]), 1_000_000, false));
    cases.push(Case {
        id: "BI-048 JSON",
        body: None,
        json: AsJson::Text(Box::new(|run| nested_json(run, 100_000))),
        expect: Expect::Invalid("undecodable JSON"),
        stored: 0,
        look: None,
    });
    cases
}
