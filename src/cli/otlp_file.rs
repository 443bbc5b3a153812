//! OTLP protobuf in files: a `TracesData` is a run of length-delimited fields, one per resource, so it can be cut between
//! any two of them, and what was cut can be put together.

use std::io::{self, Read};

/// A field on the first level of a message, as it stands in the file.
#[derive(Debug)]
pub(super) struct Field {
    /// 1 for `resource_spans`.
    pub(super) number: u64,
    /// Tag, length and payload.
    pub(super) bytes: Vec<u8>,
    payload_at: usize,
}

impl Field {
    /// What the field holds.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_at..).unwrap_or_default()
    }
}

/// The next field; `None` at the end of the message.
///
/// # Errors
/// `UnexpectedEof` in the middle of a field, `InvalidData` for one that is not length-delimited.
pub(super) fn next_field(from: &mut impl Read) -> io::Result<Option<Field>> {
    let mut bytes = Vec::new();
    let Some(tag) = varint(from, &mut bytes)? else { return Ok(None) };
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    if tag & 7 != 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("tag {tag} is none of OTLP traces")));
    }
    let len = varint(from, &mut bytes)?.ok_or_else(cut)?;
    let payload_at = bytes.len();
    let read = from.take(len).read_to_end(&mut bytes)?;
    if (read as u64) < len {
        return Err(cut());
    }
    Ok(Some(Field { number: tag >> 3, bytes, payload_at }))
}

/// A varint, its bytes appended to `bytes`; `None` when there is nothing to read.
fn varint(from: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        match from.read_exact(&mut byte) {
            Err(error) if shift == 0 && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let [byte] = byte;
        bytes.push(byte);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_one_by_one_and_a_cut_one_is_an_error() {
        let bytes = [0x0a, 2, 7, 8, 0xc2, 0x3e, 1, 9];
        let mut from = bytes.as_slice();
        let first = next_field(&mut from).unwrap().unwrap();
        assert_eq!((first.number, first.payload(), first.bytes.as_slice()), (1, &[7, 8][..], &bytes[..4]));
        let second = next_field(&mut from).unwrap().unwrap();
        assert_eq!((second.number, second.payload()), (1000, &[9][..]));
        assert!(next_field(&mut from).unwrap().is_none());
        for cut in 1..4 {
            assert!(next_field(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(next_field(&mut [0x08, 1].as_slice()).is_err(), "no length");
    }
}
