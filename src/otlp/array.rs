//! The elements of an array attribute, for whoever compares them; everybody else leaves nested values encoded.

use super::value::{ListKind, Member, Step, Walk};
use crate::model::Text;

/// A scalar in an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArrayElement<'a> {
    /// As sent, valid UTF-8 or not.
    String(&'a [u8]),
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double.
    Double(f64),
}

/// The elements of the array in one encoded `AnyValue` (`Value::Nested`); `None` when it is none, or holds anything but
/// strings, booleans and numbers. Cost: O(elements).
pub fn array_elements(encoded: &[u8]) -> Option<Vec<ArrayElement<'_>>> {
    let mut frames = Vec::new();
    let whole = Text { start: 0, len: u32::try_from(encoded.len()).ok()? };
    let mut walk = Walk::new(encoded, whole, &mut frames);
    if walk.step().ok()? != Some(Step::ListStart(ListKind::Array)) {
        return None;
    }
    let mut elements = Vec::new();
    loop {
        let text = |text: Text| encoded.get(text.start as usize..(text.start + text.len) as usize);
        elements.push(match walk.step().ok()?? {
            Step::Scalar(Member::String(string)) => ArrayElement::String(text(string)?),
            Step::Scalar(Member::Bool(value)) => ArrayElement::Bool(value),
            Step::Scalar(Member::Int(number)) => ArrayElement::Int(number),
            Step::Scalar(Member::Double(number)) => ArrayElement::Double(number),
            Step::ListEnd(ListKind::Array) => return Some(elements),
            Step::Scalar(Member::Empty | Member::Bytes(_) | Member::Strindex | Member::List { .. })
            | Step::Key { .. }
            | Step::ListStart(_)
            | Step::ListEnd(ListKind::Kvlist)
            | Step::TooDeep => return None,
        });
    }
}
