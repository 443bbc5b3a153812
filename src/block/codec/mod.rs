//! How columns become bytes: varints and compressed blobs, bit runs, numbers, texts, and prediction by context.
//!
//! Nothing here knows spans. Every reader takes the number of values from its caller, checks it against the bytes that
//! are there before it allocates, and never panics on damaged input.

mod bits;
mod bytes;
mod codes;
mod ints;
mod numbers;
mod repeats;
mod scopes;
mod templates;
mod texts;

#[cfg(test)]
mod tests;

pub(crate) use bytes::{Malformed, Packer, Reader, Unpacker, put_blob, put_text, put_varint, unzigzag, zigzag};
pub use bytes::{packed, unpacked};
pub(crate) use codes::{Contexts, Needs, RowIds, put_codes, read_codes};
pub(crate) use ints::{Ints, put_ints};
pub(crate) use numbers::{ByNumber, needs_of_numbers, put_numbers, read_numbers};
pub(crate) use repeats::{NO_ROW, Places, Repeats, Source};
pub(crate) use scopes::{callers, put_scopes, read_scopes};
pub(crate) use texts::{Texts, put_texts};
