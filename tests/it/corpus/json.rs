//! BI-034 and BI-071 to BI-092: JSON.

use super::*;

/// A request of one span with these members beside its ids and times.
pub(super) fn span_with(run: &Run, members: &str) -> String {
    let now = now().0;
    timed(run, &format!(r#""startTimeUnixNano":"{}","endTimeUnixNano":"{now}",{members}"#, now - 1_000))
}

/// The same without times.
fn timed(run: &Run, members: &str) -> String {
    let trace = run.id();
    around(&format!(r#"{{"traceId":"{trace}","spanId":"0000000000000001",{members}}}"#))
}

fn around(span: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
}

fn case(id: &'static str, expect: Expect, stored: usize, text: impl Fn(&Run) -> String + 'static) -> Case {
    Case { id, body: None, json: AsJson::Text(Box::new(text)), expect, stored, look: None }
}

/// One span, kept, with these members.
fn kept(id: &'static str, expect: Expect, members: &'static str) -> Case {
    case(id, expect, 1, move |run| span_with(run, members))
}

/// Nothing but this text.
fn plain(id: &'static str, expect: Expect, text: &'static str) -> Case {
    case(id, expect, 0, move |_| text.to_owned())
}

/// A bad span beside a good one.
fn beside_a_good_one(id: &'static str, reason: &'static str, bad: impl Fn(&Run) -> String + 'static) -> Case {
    case(id, Expect::Partial(1, reason), 1, move |run| {
        let good = span_with(run, r#""kind":2"#);
        good.replace("]}]}]}", &format!(",{}]}}]}}]}}", bad(run)))
    })
}

pub(super) fn cases() -> Vec<Case> {
    let undecodable = || Expect::Invalid("undecodable JSON");
    let mut cases = vec![
        kept("BI-034", Expect::Warned(&["invalid_utf8=1"]), r#""name":"a\ud800b""#)
            .looking(|span| assert_eq!(span["name"], "a\u{fffd}b")),
        plain("BI-071 {}", Expect::Ok, "{}"),
        plain("BI-071 null", Expect::Ok, r#"{"resourceSpans":null}"#),
        case("BI-073", Expect::Warned(&["unknown_keys", "resource_spans", "no_spans"]), 0, |run| {
            span_with(run, r#""kind":2"#).replace("resourceSpans", "resource_spans")
        }),
        case("BI-074", Expect::Warned(&["missing_time", "unknown_keys"]), 1, |run| {
            timed(run, &format!(r#""start_time_unix_nano":"1","endTimeUnixNano":"{}""#, now().0))
        }),
        kept("BI-075", Expect::Warned(&["enum_name=1"]), r#""kind":"SPAN_KIND_SERVER""#)
            .looking(|span| assert_eq!(span["kind"], 2)),
        kept("BI-076", Expect::Warned(&["enum_name=1"]), r#""kind":"SPAN_KIND_FOO""#),
        kept("BI-081", Expect::Ok, r#""droppedEventsCount":"7","attributes":[{"key":"d","value":{"doubleValue":"1.5"}},{"key":"n","value":{"doubleValue":"NaN"}}]"#)
            .looking(|span| {
                assert_eq!(span["droppedEventsCount"], 7);
                assert_eq!(span["attributes"][0]["value"]["doubleValue"], 1.5);
                assert_eq!(span["attributes"][1]["value"]["doubleValue"], "NaN");
            }),
        case("BI-082", undecodable(), 0, |run| span_with(run, r#""attributes":[{"key":"d","value":{"doubleValue":NaN}}]"#)),
        kept("BI-084", Expect::Warned(&["bad_base64=1"]), r#""attributes":[{"key":"b","value":{"bytesValue":"*"}}]"#),
        case("BI-085", Expect::Ok, 1, |run| {
            let deep = format!("{}1{}", r#"{"a":"#.repeat(9_000), "}".repeat(9_000));
            span_with(run, &format!(r#""x":1,"y":true,"z":"{}","o":{deep}"#, "s".repeat(1 << 20)))
        }),
        case("BI-086", undecodable(), 0, |run| span_with(run, &format!(r#""x":{}"#, r#"{"a":"#.repeat(1_000_000)))),
        case("BI-087", Expect::Ok, 1, |run| format!("\u{feff}{} \r\n\t ", span_with(run, r#""kind":2"#))),
        case("BI-089 trailing comma", undecodable(), 0, |run| span_with(run, r#""kind":2,"#)),
        case("BI-089 comment", undecodable(), 0, |run| span_with(run, r#"/* */"kind":2"#)),
        plain("BI-089 single quotes", undecodable(), "{'resourceSpans':[]}"),
        plain("BI-090", undecodable(), "{}x"),
        plain("BI-090 NDJSON", Expect::Invalid("one request"), "{}\n{}\n"),
        plain("BI-091", undecodable(), r#"{"resourceSpans":[{"scopeSpans"#),
        case("BI-092 brackets", undecodable(), 0, |_| "[".repeat(8 << 20)),
        case("BI-092 escapes", undecodable(), 0, |_| format!("\"{}\"", r"\u0041".repeat(1 << 20))),
    ];
    for text in ["[]", "null", "\"\"", "123"] {
        cases.push(plain("BI-072", undecodable(), text));
    }
    for id in ["wNHR0dHR0dHR0dHR0dHR0Q==", "0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0", "zzc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"] {
        cases.push(beside_a_good_one("BI-077", "invalid_trace_id", move |_| {
            format!(
                r#"{{"traceId":"{id}","spanId":"0000000000000002","startTimeUnixNano":"{0}","endTimeUnixNano":"{0}"}}"#,
                now().0
            )
        }));
    }
    let spelled: [fn(String) -> String; 3] =
        [|id| id.to_uppercase(), |id| id.to_lowercase(), |id| id.replacen('c', "C", 3)];
    for spell in spelled {
        cases.push(case("BI-078", Expect::Ok, 1, move |run| {
            let id = run.id();
            span_with(run, r#""kind":2"#).replace(&id, &spell(id.clone()))
        }));
    }
    let times: [fn(u64) -> String; 4] = [
        |now| format!("\"{now}\""),
        |now| now.to_string(),
        |now| format!("{}.{:09}e9", now / 1_000_000_000, now % 1_000_000_000),
        |now| format!("\"{}.{:09}e9\"", now / 1_000_000_000, now % 1_000_000_000),
    ];
    for time in times {
        let text =
            move |run: &Run| timed(run, &format!(r#""startTimeUnixNano":{0},"endTimeUnixNano":{0}"#, time(now().0)));
        cases.push(case("BI-079", Expect::Ok, 1, text));
    }
    for time in ["-1", "\"\"", "\"abc\"", "1e400"] {
        cases.push(beside_a_good_one("BI-080", "malformed_span", move |run| {
            let id = run.id();
            format!(
                r#"{{"traceId":"{id}","spanId":"0000000000000002","startTimeUnixNano":{time},"endTimeUnixNano":"1"}}"#
            )
        }));
    }
    for bytes in ["-_8=", "-_8", "+/8=", "+/8"] {
        let text = move |run: &Run| {
            span_with(run, &format!(r#""attributes":[{{"key":"b","value":{{"bytesValue":"{bytes}"}}}}]"#))
        };
        let look: Look = |span| assert_eq!(span["attributes"][0]["value"]["bytesValue"], "+/8=");
        cases.push(case("BI-083", Expect::Ok, 1, text).looking(look));
    }
    cases
}
