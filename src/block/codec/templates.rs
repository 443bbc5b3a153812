//! Texts of a few kinds with numbers in them: `http://shop:8080/users/17` beside `/cart/4/items`.
//!
//! Each kind is stored once, with a zero byte where a number stands; which kind a value is follows from its series as a
//! rule, and the numbers of one place in one kind have a width of their own.
//!
//! ```text
//! k:varint in [1, 1024]   texts(k)   codes(n): the kind of each value
//! for each kind, for each of its at most 8 numbers: ints(values of this kind)
//! ```
//! Numbers have no leading zeros and at most 19 digits; other digits belong to the kind.

use super::bytes::{Malformed, Packer, Reader, Unpacker, put_varint};
use super::codes::{Contexts, put_codes, read_codes};
use super::ints::{Ints, put_ints};
use super::texts::{Texts, canonical_decimal, put_decimal, put_texts};

/// Stands for a number; values that have one themselves are not for this form.
const NUMBER: u8 = 0;
/// Digits behind that many numbers belong to the kind.
const NUMBERS_MAX: usize = 8;
const KINDS_MAX: usize = 1024;

/// Kinds while they are collected.
#[derive(Default)]
struct Kinds {
    texts: Vec<Vec<u8>>,
    index: std::collections::HashMap<Vec<u8>, u64>,
    /// Of each kind, the numbers at each of its places.
    numbers: Vec<Vec<Vec<u64>>>,
    codes: Vec<u64>,
}

/// Appends the form without its number; `false`, with nothing appended, when there are too many kinds or no
/// numbers.
pub(super) fn put_templates(out: &mut Vec<u8>, values: &[&[u8]], contexts: &Contexts<'_>, packer: &mut Packer) -> bool {
    let Some(found) = Kinds::of(values) else { return false };
    put_varint(out, found.texts.len() as u64);
    let kinds: Vec<&[u8]> = found.texts.iter().map(Vec::as_slice).collect();
    put_texts(out, &kinds, &Contexts::NONE, packer);
    put_codes(out, &found.codes, found.texts.len(), contexts, packer);
    for numbers in found.numbers.iter().flatten() {
        put_ints(out, numbers, packer);
    }
    true
}

impl Kinds {
    fn of(values: &[&[u8]]) -> Option<Self> {
        // Few values per kind would not pay for their lists.
        let max = (values.len() / 16).min(KINDS_MAX);
        let mut found = Self::default();
        let (mut kind, mut numbers) = (Vec::new(), Vec::new());
        for value in values {
            split(value, &mut kind, &mut numbers)?;
            let code = if let Some(code) = found.index.get(&kind) {
                *code
            } else {
                if max <= found.texts.len() {
                    return None;
                }
                let code = found.texts.len() as u64;
                let _new = found.index.insert(kind.clone(), code);
                found.texts.push(kind.clone());
                found.numbers.push(vec![Vec::new(); numbers.len()]);
                code
            };
            found.codes.push(code);
            let of_kind = usize::try_from(code).ok().and_then(|code| found.numbers.get_mut(code))?;
            for (list, number) in of_kind.iter_mut().zip(&numbers) {
                list.push(*number);
            }
        }
        // Without any number this is a dictionary, and the column had its reasons to have none.
        if found.numbers.iter().all(Vec::is_empty) { None } else { Some(found) }
    }
}

/// Takes the numbers out of a value; `None` when it has a byte that stands for one.
fn split(value: &[u8], kind: &mut Vec<u8>, numbers: &mut Vec<u64>) -> Option<()> {
    kind.clear();
    numbers.clear();
    for piece in value.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        let is_number = numbers.len() < NUMBERS_MAX && piece.first().is_some_and(u8::is_ascii_digit);
        if let Some(number) = canonical_decimal(piece).filter(|_| is_number) {
            numbers.push(number);
            kind.push(NUMBER);
        } else if piece.contains(&NUMBER) {
            return None;
        } else {
            kind.extend_from_slice(piece);
        }
    }
    Some(())
}

/// Values of this form as read.
#[derive(Debug)]
pub(crate) struct Templates {
    kinds: Vec<Template>,
    codes: Vec<u64>,
    /// Of each value, how many of its kind come before.
    ranks: Vec<u32>,
}

#[derive(Debug)]
struct Template {
    text: Vec<u8>,
    numbers: Vec<Ints>,
}

impl Templates {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        n: usize,
        contexts: &Contexts<'_>,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        let n_kinds = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if KINDS_MAX < n_kinds {
            return Err(Malformed("too many kinds of texts"));
        }
        let texts = Texts::read(reader, n_kinds, &Contexts::NONE, unpacker)?;
        let codes = read_codes(reader, n, n_kinds, contexts, unpacker)?.into_values(n);
        let mut counts = vec![0_u32; n_kinds];
        let mut ranks = Vec::with_capacity(n);
        for code in &codes {
            let count = usize::try_from(*code).ok().and_then(|code| counts.get_mut(code));
            let count = count.ok_or(Malformed("a text is of a kind that does not exist"))?;
            ranks.push(*count);
            *count += 1;
        }
        let mut kinds = Vec::with_capacity(n_kinds);
        for (kind, count) in counts.into_iter().enumerate() {
            let mut text = Vec::new();
            texts.write(kind, &mut text)?;
            let places = text.split(|byte| *byte == NUMBER).count() - 1;
            if NUMBERS_MAX < places {
                return Err(Malformed("a kind of texts has too many numbers"));
            }
            let numbers = (0..places).map(|_| Ints::read(reader, count as usize, unpacker));
            kinds.push(Template { numbers: numbers.collect::<Result<_, _>>()?, text });
        }
        Ok(Self { kinds, codes, ranks })
    }

    /// Appends the value at `idx`.
    pub(super) fn write(&self, idx: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        const PAST: Malformed = Malformed("a text is past the end");
        let code = self.codes.get(idx).and_then(|code| usize::try_from(*code).ok()).ok_or(PAST)?;
        let kind = self.kinds.get(code).ok_or(PAST)?;
        let rank = *self.ranks.get(idx).ok_or(PAST)? as usize;
        let mut numbers = kind.numbers.iter();
        for piece in kind.text.split_inclusive(|byte| *byte == NUMBER) {
            match piece.split_last() {
                Some((&NUMBER, before)) => {
                    out.extend_from_slice(before);
                    put_decimal(out, numbers.next().map_or(0, |numbers| numbers.get(rank)));
                }
                _ => out.extend_from_slice(piece),
            }
        }
        Ok(())
    }
}
