//! BI-056 to BI-070 and BI-106: protobuf on the wire.

use super::*;

/// A request of one good span with bytes in front of and behind its ResourceSpans.
fn around(id: &'static str, expect: Expect, stored: usize, front: &'static [u8], tail: &'static [u8]) -> Case {
    let body = move |run: &Run| [front, request(vec![run.span(1)]).encode_to_vec().as_slice(), tail].concat();
    Case::new(id, body, expect, stored).without_json()
}

fn anything(id: &'static str, expect: Expect, body: impl Fn() -> Vec<u8> + 'static) -> Case {
    Case::new(id, move |_| body(), expect, 0).without_json()
}

/// Start and end of `depth` groups of field 15.
fn groups(depth: usize) -> Vec<u8> {
    [vec![0x7b; depth], vec![0x7c; depth]].concat()
}

pub(super) fn cases() -> Vec<Case> {
    let wrong_signal = || Expect::Invalid("wrong signal?");
    let metric = [field(1, b"requests"), field(3, b"1")].concat();
    let log = b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x10\x09".to_vec();
    let signal = |element: Vec<u8>| move || field(1, &field(2, &field(2, &element).repeat(3)));
    let mut cases = vec![
        around("BI-058 length past the end", Expect::Invalid("undecodable"), 0, b"", b"\x0a\x05a"),
        around(
            "BI-058 varint of 11 bytes",
            Expect::Invalid("undecodable"),
            0,
            b"\x78\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"",
        ),
        around("BI-058 wrong wire type", Expect::Invalid("undecodable"), 0, b"", b"\x08\x01"),
        around("BI-058 field number 0", Expect::Invalid("undecodable"), 0, b"\x02\x00", b""),
        around("BI-060", Expect::Ok, 1, b"\x7b\x7b\x08\x01\x7c\x7c", b""),
        around("BI-061 unbalanced", Expect::Invalid("undecodable"), 0, b"", b"\x7b\x08\x01"),
        around("BI-061 an end alone", Expect::Invalid("undecodable"), 0, b"", b"\x7c"),
        around("BI-062 field number", Expect::Ok, 1, b"\xf8\xff\xff\xff\x0f\x01", b""),
        Case::new(
            "BI-060 64 deep",
            |run| [groups(64), request(vec![run.span(1)]).encode_to_vec()].concat(),
            Expect::Ok,
            1,
        )
        .without_json(),
        anything("BI-061 10^6 deep", Expect::Invalid("undecodable"), || groups(1_000_000)),
        Case::new(
            "BI-062 1 MiB",
            |run| [field(99, &vec![0; 1 << 20]), request(vec![run.span(1)]).encode_to_vec()].concat(),
            Expect::Ok,
            1,
        )
        .without_json(),
        anything("BI-063", Expect::Warned(&["deprecated_field=1"]), || field(1, &field(1_000, b"\x12\x00"))),
        Case::new(
            "BI-064 two requests",
            |run| [request(vec![run.span(1)]), request(vec![run.span(2)])].map(|r| r.encode_to_vec()).concat(),
            Expect::Ok,
            2,
        )
        .without_json(),
        Case::raw_among("BI-064 the last scalar", Expect::Ok, || {
            [field(5, b"last"), b"\x30\x83\x80\x00".to_vec()].concat()
        })
        .looking(|span| assert_eq!((&span["name"], &span["kind"]), (&"last".into(), &3.into()))),
        anything("BI-065 metrics", wrong_signal(), signal(metric)),
        anything("BI-065 logs", wrong_signal(), signal(log)),
        anything("BI-066", Expect::Invalid("looks like JSON"), || br#" {"resourceSpans":[]}"#.to_vec()),
        Case {
            id: "BI-066 the reverse",
            body: None,
            json: AsJson::Text(Box::new(|_| "\n\u{4}\u{12}\u{2}\u{12}\0".to_owned())),
            expect: Expect::Invalid("protobuf"),
            stored: 0,
            look: None,
        },
        anything("BI-068 spans", Expect::TooLarge, || field(1, &field(2, &[0x12, 0x00].repeat(2 << 20)))),
        anything("BI-068 resources", Expect::TooLarge, || [0x0a, 0x00].repeat(2 << 20)),
        anything("BI-070", Expect::TooLarge, || {
            let attribute = field(9, &field(1, b"k"));
            field(1, &field(2, &field(2, &attribute.repeat(2_000_000))))
        }),
        Case::new(
            "BI-106",
            |run| {
                let bad = field(2, &Span { trace_id: vec![1; 15], ..run.span(9) }.encode_to_vec()).repeat(300_000);
                field(1, &field(2, &[field(2, &run.span(1).encode_to_vec()), bad].concat()))
            },
            Expect::Partial(300_000, "invalid_trace_id"),
            1,
        )
        .without_json(),
    ];
    for (id, tail) in [
        ("BI-059 length past the end", &b"\x2a\x7fa"[..]),
        ("BI-059 varint of 11 bytes", b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("BI-059 wrong wire type", b"\x28\x01"),
        ("BI-059 field number 0", b"\x02\x00"),
    ] {
        cases.push(Case::raw_among(id, Expect::Partial(1, "malformed_span"), move || tail.to_vec()));
    }
    cases
}
