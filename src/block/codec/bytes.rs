//! Varints, length-prefixed texts and compressed blobs.

use std::cell::Cell;

use zstd::bulk::Decompressor;

/// Level for every blob: above it, chunks of a few kilobytes only get slower.
const ZSTD_LEVEL: i32 = 3;
/// Blobs below this never pay for a zstd frame.
const COMPRESSED_BYTES_MIN: usize = 24;
/// A declared size up to this is allocated at once; a larger one must be plausible for its compressed length.
const TRUSTED_BYTES_MAX: usize = 1024 * 1024;
/// Plausible growth of a blob; what claims more is decompressed piece by piece.
const TRUSTED_RATIO_MAX: usize = 256;

/// Bytes that are no chunk of ours; the text says what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends an unsigned LEB128 number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// Appends a length and the bytes.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// The least significant byte.
pub(crate) fn low_byte(value: u64) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

/// Small magnitudes become small numbers, whatever their sign; takes and gives all 64 bits.
pub(crate) fn zigzag(value: u64) -> u64 {
    (value << 1) ^ if value >> 63 == 1 { u64::MAX } else { 0 }
}

/// Undoes `zigzag`.
pub(crate) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ if value & 1 == 1 { u64::MAX } else { 0 }
}

/// A cursor over bytes that may be damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.u8()?);
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint has more than 10 bytes"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number is above 32 bits"))
    }

    /// A count of things that take at least one byte each, so never more than the bytes that are left.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if self.rest.len() < count { Err(Malformed("a count is larger than its bytes")) } else { Ok(count) }
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.bytes(len)
    }

    /// What `put_blob` wrote.
    pub(crate) fn blob(&mut self, unpacker: &mut Unpacker) -> Result<Vec<u8>, Malformed> {
        let raw_len = usize::try_from(self.varint()?).map_err(|_| Malformed("a blob is too long"))?;
        let packed_len = self.count()?;
        if packed_len == 0 {
            return self.bytes(raw_len).map(<[u8]>::to_vec);
        }
        unpacker.unpack(self.bytes(packed_len)?, raw_len)
    }
}

/// Appends `raw_len | packed_len | bytes`: one zstd frame, or the bytes as they are with `packed_len` 0.
pub(crate) fn put_blob(out: &mut Vec<u8>, raw: &[u8], packer: &mut Packer) {
    put_varint(out, raw.len() as u64);
    if let Some(frame) = packer.pack(raw) {
        put_text(out, frame);
        return;
    }
    put_varint(out, 0);
    out.extend_from_slice(raw);
}

/// The bytes as one blob.
pub fn packed(raw: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    put_blob(&mut blob, raw, &mut Packer::new());
    blob
}

/// What `packed` made; `None` for other bytes.
pub fn unpacked(blob: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(blob);
    let raw = reader.blob(&mut Unpacker::new()).ok()?;
    reader.is_empty().then_some(raw)
}

/// A zstd compressor that is made once and used for many blobs.
pub(crate) struct Packer {
    /// `None` when zstd had no memory for it; blobs then stay as they are.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new() -> Self {
        Self { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(), packed: Vec::new() }
    }

    /// One that leaves every blob as it is: for fuzzing, where compression would hide what is inside.
    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self { zstd: None, packed: Vec::new() }
    }

    /// The compressed form when it is shorter by enough to be worth a frame.
    fn pack(&mut self, raw: &[u8]) -> Option<&[u8]> {
        if raw.len() < COMPRESSED_BYTES_MIN {
            return None;
        }
        let zstd = self.zstd.as_mut()?;
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let len = zstd.compress_to_buffer(raw, &mut self.packed).ok()?;
        if len + raw.len() / 64 < raw.len() { self.packed.get(..len) } else { None }
    }
}

/// A zstd decompressor that is made once and used for many blobs.
pub(crate) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

thread_local! {
    /// The context of the last unpacker of the thread: making one costs as much as reading a column.
    static SPARE: Cell<Option<Decompressor<'static>>> = const { Cell::new(None) };
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        if let Some(zstd) = self.zstd.take() {
            SPARE.set(Some(zstd));
        }
    }
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self { zstd: None }
    }

    fn unpack(&mut self, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, Malformed> {
        const BAD: Malformed = Malformed("a zstd frame does not decompress to its length");
        let plausible = packed.len().saturating_mul(TRUSTED_RATIO_MAX).max(TRUSTED_BYTES_MAX);
        let raw = if raw_len <= plausible {
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                none => none.insert(match SPARE.take() {
                    Some(spare) => spare,
                    None => Decompressor::new().map_err(|_| Malformed("zstd has no memory"))?,
                }),
            };
            zstd.decompress(packed, raw_len).map_err(|_| BAD)?
        } else {
            unpack_slowly(packed, raw_len).map_err(|_| BAD)?
        };
        if raw.len() == raw_len { Ok(raw) } else { Err(BAD) }
    }
}

/// Memory grows with what really comes out of the frame, not with what its length claims.
fn unpack_slowly(packed: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut raw = Vec::new();
    let frame = zstd::stream::read::Decoder::with_buffer(packed)?;
    let _len = frame.take((raw_len as u64).saturating_add(1)).read_to_end(&mut raw)?;
    Ok(raw)
}
