//! Encoding a nested value anew, when it cannot stay as it was sent.

use super::value::{Frame, ListKind, Member, Step, Walk};
use super::wire::Fault;
use super::writer::MessageWriter;
use crate::model::Text;

/// What a rewritten value differs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// Lists nested too deep are empty values; texts are verbatim.
    Cut,
    /// The same, and what is no UTF-8 is U+FFFD.
    Utf8,
}

/// Encodes the `AnyValue` in `piece` of `source` again. Cost: O(its bytes).
pub(crate) fn rewrite_value(
    source: &[u8],
    piece: Text,
    frames: &mut Vec<Frame>,
    how: Rewritten,
) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::default();
    let mut walk = Walk::new(source, piece, frames);
    // The lists around the next value; only the value itself, at the top, has no message of its own around it.
    let mut around: Vec<ListKind> = Vec::new();
    while let Some(step) = walk.step()? {
        if let Step::Key(key) = step {
            out.open(1);
            write_text(&mut out, 1, source, key, how);
            continue;
        }
        if let Step::ListEnd(_) = step {
            out.close();
            let _ended = around.pop();
            close_value(&mut out, around.last());
            continue;
        }
        open_value(&mut out, around.last());
        match step {
            Step::ListStart(kind) => {
                out.open(kind.number());
                around.push(kind);
            }
            Step::Scalar(member) => {
                write_scalar(&mut out, source, member, how);
                close_value(&mut out, around.last());
            }
            Step::TooDeep | Step::Key(_) | Step::ListEnd(_) => close_value(&mut out, around.last()),
        }
    }
    Ok(out.finish())
}

fn open_value(out: &mut MessageWriter, around: Option<&ListKind>) {
    match around {
        Some(ListKind::Array) => out.open(1),
        Some(ListKind::Kvlist) => out.open(2),
        None => {}
    }
}

fn close_value(out: &mut MessageWriter, around: Option<&ListKind>) {
    match around {
        Some(ListKind::Array) => out.close(),
        Some(ListKind::Kvlist) => {
            out.close();
            // The entry ends with its value.
            out.close();
        }
        None => {}
    }
}

fn write_scalar(out: &mut MessageWriter, source: &[u8], member: Member, how: Rewritten) {
    match member {
        // References point into a table that is not there: empty, as everywhere.
        Member::Empty | Member::Strindex | Member::List { .. } => {}
        Member::String(text) => write_text(out, 1, source, text, how),
        Member::Bool(value) => out.varint(2, u64::from(value)),
        Member::Int(value) => out.varint(3, value.cast_unsigned()),
        Member::Double(value) => out.fixed64(4, value.to_bits()),
        Member::Bytes(bytes) => out.bytes(7, slice(source, bytes)),
    }
}

fn write_text(out: &mut MessageWriter, number: u32, source: &[u8], text: Text, how: Rewritten) {
    let bytes = slice(source, text);
    match how {
        Rewritten::Cut => out.bytes(number, bytes),
        Rewritten::Utf8 => out.bytes(number, String::from_utf8_lossy(bytes).as_bytes()),
    }
}

fn slice(source: &[u8], text: Text) -> &[u8] {
    source.get(text.start as usize..text.start.saturating_add(text.len) as usize).unwrap_or_default()
}
