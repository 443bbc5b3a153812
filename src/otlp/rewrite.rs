//! Encoding a nested value anew, when it cannot stay as it was sent.

use super::text::floor_char_boundary;
use super::value::{Frame, ListKind, Member, Step, Walk};
use super::wire::Fault;
use super::writer::MessageWriter;
use crate::limits::TEXT_BYTES_MAX;
use crate::model::Text;

/// What a rewritten value differs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten<'a> {
    /// Lists nested too deep are empty values; keys, strings and bytes end at their limit.
    Cut,
    /// What is no UTF-8 is U+FFFD.
    Utf8,
    /// These strings and bytes are shorter; in the order of a walk.
    Shorter(&'a [ShorterLeaf]),
}

/// What stays of a string or bytes inside a nested value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShorterLeaf {
    /// Place among all strings and bytes of the value, keys not counted, from 0.
    pub(crate) leaf: u32,
    /// Bytes kept.
    pub(crate) kept: u32,
}

/// Encodes the `AnyValue` in `piece` of `source` again. Cost: O(its bytes).
pub(crate) fn rewrite_value(
    source: &[u8],
    piece: Text,
    frames: &mut Vec<Frame>,
    how: Rewritten<'_>,
) -> Result<Vec<u8>, Fault> {
    let mut rewriter = Rewriter { source, how, out: MessageWriter::default(), around: Vec::new(), n_leaves: 0 };
    let mut walk = Walk::new(source, piece, frames);
    while let Some(step) = walk.step()? {
        rewriter.step(step);
    }
    Ok(rewriter.out.finish())
}

struct Rewriter<'a> {
    source: &'a [u8],
    how: Rewritten<'a>,
    out: MessageWriter,
    /// The lists around the next value; only the value itself, at the top, has no message of its own around it.
    around: Vec<ListKind>,
    /// Strings and bytes passed.
    n_leaves: u32,
}

impl<'a> Rewriter<'a> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Key { key, .. } => {
                self.out.open(1);
                let bytes = slice(self.source, key);
                let bytes = if self.how == Rewritten::Cut { cut_text(bytes) } else { bytes };
                self.write_text(bytes);
            }
            Step::ListEnd(_) => {
                self.out.close();
                let _ended = self.around.pop();
                self.close_value();
            }
            Step::ListStart(kind) => {
                self.open_value();
                self.out.open(kind.number());
                self.around.push(kind);
            }
            Step::Scalar(member) => {
                self.open_value();
                self.write_scalar(member);
                self.close_value();
            }
            Step::TooDeep => {
                self.open_value();
                self.close_value();
            }
        }
    }

    fn open_value(&mut self) {
        match self.around.last() {
            Some(ListKind::Array) => self.out.open(1),
            Some(ListKind::Kvlist) => self.out.open(2),
            None => {}
        }
    }

    fn close_value(&mut self) {
        match self.around.last() {
            Some(ListKind::Array) => self.out.close(),
            Some(ListKind::Kvlist) => {
                self.out.close();
                // The entry ends with its value.
                self.out.close();
            }
            None => {}
        }
    }

    fn write_scalar(&mut self, member: Member) {
        match member {
            // References point into a table that is not there: empty, as everywhere.
            Member::Empty | Member::Strindex | Member::List { .. } => {}
            Member::String(text) => {
                let bytes = self.leaf(text, cut_text);
                self.write_text(bytes);
            }
            Member::Bool(value) => self.out.varint(2, u64::from(value)),
            Member::Int(value) => self.out.varint(3, value.cast_unsigned()),
            Member::Double(value) => self.out.fixed64(4, value.to_bits()),
            Member::Bytes(bytes) => {
                let bytes = self.leaf(bytes, cut_bytes);
                self.out.bytes(7, bytes);
            }
        }
    }

    /// What stays of a string or bytes; `cut` is how it ends at its limit.
    fn leaf(&mut self, place: Text, cut: fn(&[u8]) -> &[u8]) -> &'a [u8] {
        let bytes = slice(self.source, place);
        let leaf = self.n_leaves;
        self.n_leaves += 1;
        match self.how {
            Rewritten::Cut => cut(bytes),
            Rewritten::Shorter([next, rest @ ..]) if next.leaf == leaf => {
                self.how = Rewritten::Shorter(rest);
                bytes.get(..next.kept as usize).unwrap_or(bytes)
            }
            Rewritten::Shorter(_) | Rewritten::Utf8 => bytes,
        }
    }

    /// A key, or a string: field 1 of its message, both.
    fn write_text(&mut self, bytes: &[u8]) {
        match self.how {
            Rewritten::Cut | Rewritten::Shorter(_) => self.out.bytes(1, bytes),
            Rewritten::Utf8 => self.out.bytes(1, String::from_utf8_lossy(bytes).as_bytes()),
        }
    }
}

fn cut_text(text: &[u8]) -> &[u8] {
    text.get(..floor_char_boundary(text, TEXT_BYTES_MAX)).unwrap_or(text)
}

fn cut_bytes(bytes: &[u8]) -> &[u8] {
    bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes)
}

fn slice(source: &[u8], text: Text) -> &[u8] {
    source.get(text.start as usize..text.start.saturating_add(text.len) as usize).unwrap_or_default()
}
