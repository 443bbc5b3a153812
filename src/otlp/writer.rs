//! Writing protobuf messages whose length is known only when they end: in one forward pass, whatever their depth.

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// Appends fields and sub-messages. Sub-messages are opened and closed; their length prefixes are kept aside and put
/// in place by `finish`, so the cost is linear also for deep nesting.
#[derive(Debug, Default)]
pub(crate) struct MessageWriter {
    /// Everything but the length prefixes.
    bytes: Vec<u8>,
    /// Ordered by place.
    prefixes: Vec<Prefix>,
    open: Vec<Open>,
    /// Bytes that the prefixes of all closed messages will take.
    prefix_bytes: usize,
}

#[derive(Debug)]
struct Prefix {
    /// Offset in `bytes`.
    at: usize,
    len: usize,
}

#[derive(Debug)]
struct Open {
    prefix_idx: usize,
    prefix_bytes_before: usize,
}

impl MessageWriter {
    /// Opens a sub-message; what follows goes into it until `close`.
    pub(crate) fn open(&mut self, number: u32) {
        self.tag(number, 2);
        self.open.push(Open { prefix_idx: self.prefixes.len(), prefix_bytes_before: self.prefix_bytes });
        self.prefixes.push(Prefix { at: self.bytes.len(), len: 0 });
    }

    /// Closes the message opened last; without one, nothing happens.
    pub(crate) fn close(&mut self) {
        let Some(open) = self.open.pop() else { return };
        if let Some(prefix) = self.prefixes.get_mut(open.prefix_idx) {
            prefix.len = self.bytes.len() - prefix.at + (self.prefix_bytes - open.prefix_bytes_before);
            self.prefix_bytes += varint_len(prefix.len as u64);
        }
    }

    /// A `string`, `bytes` or encoded message field.
    pub(crate) fn bytes(&mut self, number: u32, value: &[u8]) {
        self.tag(number, 2);
        write_varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// An integer, bool or enum field.
    pub(crate) fn varint(&mut self, number: u32, value: u64) {
        self.tag(number, 0);
        write_varint(&mut self.bytes, value);
    }

    /// A `fixed64` or `double` field.
    pub(crate) fn fixed64(&mut self, number: u32, value: u64) {
        self.tag(number, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A `fixed32` field.
    pub(crate) fn fixed32(&mut self, number: u32, value: u32) {
        self.tag(number, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes as they are: fields already encoded.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.bytes.extend_from_slice(fields);
    }

    /// The whole message. Messages still open are closed.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.close();
        }
        if self.prefixes.is_empty() {
            return self.bytes;
        }
        let mut out = Vec::with_capacity(self.bytes.len() + self.prefix_bytes);
        let mut from = 0;
        for prefix in &self.prefixes {
            out.extend_from_slice(self.bytes.get(from..prefix.at).unwrap_or_default());
            write_varint(&mut out, prefix.len as u64);
            from = prefix.at;
        }
        out.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        out
    }

    fn tag(&mut self, number: u32, wire_type: u64) {
        write_varint(&mut self.bytes, u64::from(number) << 3 | wire_type);
    }
}

/// Bytes of a `string`, `bytes` or message field of `len` bytes, its tag and prefix included; field numbers are below 16.
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn varint_len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()) as usize;
    bits.div_ceil(7).max(1)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    for _ in 0..VARINT_BYTES_MAX {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_minimal_and_count_the_prefixes_inside() {
        let mut writer = MessageWriter::default();
        writer.open(1);
        writer.open(2);
        writer.bytes(3, &[7; 130]);
        writer.close();
        writer.open(4);
        writer.close();
        writer.close();
        writer.varint(5, 300);
        let mut expected = vec![0x0a, 0x8a, 0x01, 0x12, 0x85, 0x01, 0x1a, 0x82, 0x01];
        expected.extend_from_slice(&[7; 130]);
        expected.extend_from_slice(&[0x22, 0x00, 0x28, 0xac, 0x02]);
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn a_million_messages_inside_each_other_take_linear_time() {
        let mut writer = MessageWriter::default();
        for _ in 0..1_000_000 {
            writer.open(1);
        }
        // Tag and length prefix, of 4 bytes from a length of 2^21 on.
        assert!((4_000_000..5_000_000).contains(&writer.finish().len()));
    }

    #[test]
    fn varint_len_is_what_write_varint_writes() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }
}
