//! `AnyValue` on the wire: which member of it counts, and a walk through arrays and key-value lists without recursion.
//!
//! Inside a list a repeated `value` of one `KeyValue` is not merged, the last one counts.

use super::wire::{Fault, Reader, Wire, low_i32};
use crate::limits::VALUE_DEPTH_MAX;
use crate::model::Text;

/// `AnyValue.array_value`.
pub(crate) const ARRAY_VALUE: u32 = 5;
/// `AnyValue.kvlist_value`.
pub(crate) const KVLIST_VALUE: u32 = 6;

/// The two lists an `AnyValue` may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Array,
    Kvlist,
}

impl ListKind {
    /// Field number in `AnyValue`.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Array => ARRAY_VALUE,
            Self::Kvlist => KVLIST_VALUE,
        }
    }
}

/// The member of an `AnyValue` that counts: the last one on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Member {
    Empty,
    String(Text),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Text),
    /// A reference into a string table.
    Strindex,
    List {
        kind: ListKind,
        /// Content of its first part; equal members that follow each other are one list.
        content: Text,
        /// What follows that part in the `AnyValue`.
        rest: Text,
    },
}

/// Reads the `AnyValue` in `piece` of `source`. Cost: O(its fields), their content is not looked at.
pub(crate) fn member(source: &[u8], piece: Text) -> Result<Member, Fault> {
    let mut reader = Reader::of(source, piece);
    let mut member = Member::Empty;
    while let Some(field) = reader.field()? {
        member = match (field.number, field.wire) {
            (1, Wire::Bytes(text)) => Member::String(text),
            (2, Wire::Varint(value)) => Member::Bool(value != 0),
            (3, Wire::Varint(value)) => Member::Int(value.cast_signed()),
            (4, Wire::Fixed64(bits)) => Member::Double(f64::from_bits(bits)),
            (ARRAY_VALUE, Wire::Bytes(content)) => list(member, ListKind::Array, content, piece),
            (KVLIST_VALUE, Wire::Bytes(content)) => list(member, ListKind::Kvlist, content, piece),
            (7, Wire::Bytes(bytes)) => Member::Bytes(bytes),
            (8, Wire::Varint(_)) => Member::Strindex,
            (1..=8, _) => return Err(field.wrong_wire()),
            _ => member,
        };
    }
    Ok(member)
}

fn list(before: Member, kind: ListKind, content: Text, piece: Text) -> Member {
    if let Member::List { kind: same, .. } = before
        && same == kind
    {
        return before;
    }
    let rest_start = content.start + content.len;
    let rest = Text { start: rest_start, len: piece.start + piece.len - rest_start };
    Member::List { kind, content, rest }
}

/// A `KeyValue`: the last key, the last value if there is one, and whether there were several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyValue {
    pub(crate) key: Text,
    pub(crate) value: Text,
    pub(crate) n_values: u32,
    /// `key_strindex` is set.
    pub(crate) strindex: bool,
}

/// Reads the `KeyValue` in `piece` of `source`.
pub(crate) fn key_value(source: &[u8], piece: Text) -> Result<KeyValue, Fault> {
    let mut reader = Reader::of(source, piece);
    let mut found = KeyValue::default();
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(key)) => found.key = key,
            (2, Wire::Bytes(value)) => {
                found.value = value;
                found.n_values = found.n_values.saturating_add(1);
            }
            (3, Wire::Varint(index)) => found.strindex = low_i32(index) != 0,
            (1..=3, _) => return Err(field.wrong_wire()),
            _ => {}
        }
    }
    Ok(found)
}

/// One step of a walk through a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// The key of the entry whose value comes next, and whether a string table is said to hold it.
    Key {
        key: Text,
        strindex: bool,
    },
    /// Anything but a list.
    Scalar(Member),
    ListStart(ListKind),
    ListEnd(ListKind),
    /// A list below `limits::VALUE_DEPTH_MAX` others; it is passed over.
    TooDeep,
}

/// Where a walk stands in one of the lists around it.
#[derive(Debug)]
pub(crate) struct Frame {
    kind: ListKind,
    /// What is left of the list's current part.
    content: Text,
    /// What is left of the `AnyValue` around it.
    rest: Text,
}

/// A walk through one `AnyValue`. Needs at most `limits::VALUE_DEPTH_MAX` frames, whatever the input.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    source: &'a [u8],
    frames: &'a mut Vec<Frame>,
    /// A value to be entered next.
    pending: Option<Text>,
}

impl<'a> Walk<'a> {
    /// Starts at the `AnyValue` in `piece` of `source`; `frames` is scratch space.
    pub(crate) fn new(source: &'a [u8], piece: Text, frames: &'a mut Vec<Frame>) -> Self {
        frames.clear();
        Self { source, frames, pending: Some(piece) }
    }

    /// The next step, `None` at the end.
    pub(crate) fn step(&mut self) -> Result<Option<Step>, Fault> {
        loop {
            if let Some(piece) = self.pending.take() {
                return self.enter(piece).map(Some);
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let mut reader = Reader::of(self.source, frame.content);
            let Some(field) = reader.field()? else {
                if let Some(end) = self.end_of_part()? {
                    return Ok(Some(end));
                }
                continue;
            };
            frame.content = advance(frame.content, reader.at());
            match (frame.kind, field.number, field.wire) {
                (ListKind::Array, 1, Wire::Bytes(value)) => self.pending = Some(value),
                (ListKind::Kvlist, 1, Wire::Bytes(entry)) => {
                    let entry = key_value(self.source, entry)?;
                    self.pending = Some(entry.value);
                    return Ok(Some(Step::Key { key: entry.key, strindex: entry.strindex }));
                }
                (ListKind::Array | ListKind::Kvlist, 1, _) => return Err(field.wrong_wire()),
                (ListKind::Array | ListKind::Kvlist, ..) => {}
            }
        }
    }

    fn enter(&mut self, piece: Text) -> Result<Step, Fault> {
        Ok(match member(self.source, piece)? {
            Member::List { .. } if VALUE_DEPTH_MAX <= self.frames.len() => Step::TooDeep,
            Member::List { kind, content, rest } => {
                self.frames.push(Frame { kind, content, rest });
                Step::ListStart(kind)
            }
            scalar => Step::Scalar(scalar),
        })
    }

    /// Goes on with the next part of the innermost list, or leaves the list.
    fn end_of_part(&mut self) -> Result<Option<Step>, Fault> {
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        let mut reader = Reader::of(self.source, frame.rest);
        while let Some(field) = reader.field()? {
            if let Wire::Bytes(content) = field.wire
                && field.number == frame.kind.number()
            {
                frame.content = content;
                frame.rest = advance(frame.rest, reader.at());
                return Ok(None);
            }
        }
        let kind = frame.kind;
        let _left = self.frames.pop();
        Ok(Some(Step::ListEnd(kind)))
    }
}

/// The piece from `at` on.
fn advance(piece: Text, at: usize) -> Text {
    let end = piece.start + piece.len;
    // Positions come from inside the piece.
    let start = u32::try_from(at).unwrap_or(end);
    Text { start, len: end.saturating_sub(start) }
}
