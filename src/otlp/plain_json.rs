//! Attribute values as people write JSON: for protocols whose attributes are texts.

use std::fmt::Write as _;

use super::binary_text::write_base64;
use super::encode_json::{write_double, write_string};
use super::value::{ListKind, Member, Step, Walk};
use crate::model::Text;

/// The array or key-value list in one encoded `AnyValue` (`Value::Nested`) as compact JSON: `[1,"a",{"k":null}]`.
///
/// Whole numbers keep all their digits; bytes are base64; NaN and the infinities are strings. Cost: O(bytes).
pub fn plain_json(encoded: &[u8]) -> String {
    let (mut out, mut frames) = (String::new(), Vec::new());
    let Ok(len) = u32::try_from(encoded.len()) else { return out };
    let mut walk = Walk::new(encoded, Text { start: 0, len }, &mut frames);
    let mut around: Vec<ListKind> = Vec::new();
    // The value was walked when it came in; should it not read now, what was open is closed.
    while let Ok(Some(step)) = walk.step() {
        if let Step::ListEnd(kind) = step {
            let _ended = around.pop();
            out.push(closing(kind));
            continue;
        }
        // No value ends in these, a string ends in its quote.
        if !out.is_empty() && !out.ends_with(['{', '[', ':']) {
            out.push(',');
        }
        match step {
            Step::Key { key, .. } => {
                write_string(piece(encoded, key), &mut out);
                out.push(':');
            }
            Step::ListStart(kind) => {
                out.push(if kind == ListKind::Array { '[' } else { '{' });
                around.push(kind);
            }
            Step::Scalar(member) => write_scalar(encoded, member, &mut out),
            Step::TooDeep | Step::ListEnd(_) => out.push_str("null"),
        }
    }
    if out.ends_with(':') {
        out.push_str("null");
    }
    out.extend(around.into_iter().rev().map(closing));
    out
}

/// Bytes in base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    write_base64(bytes, &mut out);
    out
}

fn closing(kind: ListKind) -> char {
    if kind == ListKind::Array { ']' } else { '}' }
}

fn write_scalar(encoded: &[u8], member: Member, out: &mut String) {
    match member {
        Member::Empty | Member::Strindex | Member::List { .. } => out.push_str("null"),
        Member::String(text) => write_string(piece(encoded, text), out),
        Member::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Member::Int(value) => {
            let _written = write!(out, "{value}");
        }
        Member::Double(value) => write_double(value, out),
        Member::Bytes(bytes) => {
            out.push('"');
            write_base64(piece(encoded, bytes), out);
            out.push('"');
        }
    }
}

fn piece(encoded: &[u8], text: Text) -> &[u8] {
    let start = text.start as usize;
    encoded.get(start..start.saturating_add(text.len as usize)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::{
        ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
    };
    use opentelemetry_proto::tonic::common::v1::{self, AnyValue, KeyValue, any_value};
    use prost::Message as _;

    use super::*;

    fn some(value: any_value::Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn list(values: Vec<AnyValue>) -> AnyValue {
        some(ArrayValue(v1::ArrayValue { values }))
    }

    fn map(entries: Vec<(&str, Option<AnyValue>)>) -> AnyValue {
        let values = entries.into_iter();
        let values = values.map(|(key, value)| KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
        some(KvlistValue(v1::KeyValueList { values: values.collect() }))
    }

    #[test]
    fn every_type_is_written_as_json_has_it() {
        let scalars = vec![
            some(StringValue("a\"\\\n\u{e9}".to_owned())),
            some(BoolValue(true)),
            some(IntValue(i64::MIN)),
            some(DoubleValue(0.5)),
            some(DoubleValue(f64::NEG_INFINITY)),
            some(BytesValue(vec![0, 255])),
            AnyValue::default(),
        ];
        for (value, json) in [
            (list(vec![]), "[]"),
            (map(vec![]), "{}"),
            (list(scalars), "[\"a\\\"\\\\\\u000a\u{e9}\",true,-9223372036854775808,0.5,\"-Infinity\",\"AP8=\",null]"),
            (
                map(vec![("k", Some(list(vec![some(IntValue(1)), list(vec![]), map(vec![])]))), ("no \"", None)]),
                r#"{"k":[1,[],{}],"no \"":null}"#,
            ),
        ] {
            assert_eq!(plain_json(&value.encode_to_vec()), json);
        }
    }

    #[test]
    fn what_does_not_read_to_its_end_is_still_json() {
        let whole = map(vec![("k", Some(list(vec![some(StringValue("text".to_owned()))])))]).encode_to_vec();
        for end in 0..whole.len() {
            let json = plain_json(&whole[..end]);
            assert!(json.is_empty() || serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        }
    }
}
