//! Section 0: what is where in a block.

use super::SectionId;
use super::codec::{Malformed, Packer, Reader, Unpacker, put_blob, put_varint};
use super::columns::{ColumnId, DICTIONARY_ENTRIES_MAX, GROUP_ROWS};
use super::error::BlockError;
use super::summary::BlockSummary;
use crate::limits::BLOCK_SPANS_MAX;
use crate::model::TraceId;

const MAGIC: [u8; 4] = *b"SPBL";
/// The only version there is.
const VERSION: u8 = 1;

/// Where the bytes of one column lie in its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) column: ColumnId,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// A column's dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct DictionaryChunk {
    pub(super) chunk: Chunk,
    pub(super) n_entries: u32,
}

/// Lengths of the three tables in section 3, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableLengths {
    pub(super) attributes: u32,
    pub(super) scopes: u32,
    pub(super) series: u32,
}

/// Section 0 in memory.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) summary: BlockSummary,
    pub(super) n_series: u32,
    pub(super) n_scopes: u32,
    pub(super) tables: TableLengths,
    /// First trace of each row group.
    pub(super) fences: Vec<TraceId>,
    /// Chunks of each row group, ascending by column, one behind the other.
    pub(super) groups: Vec<Vec<Chunk>>,
    /// Ascending by column, one behind the other.
    pub(super) dictionaries: Vec<DictionaryChunk>,
}

impl Header {
    pub(super) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let mut body = Vec::new();
        self.summary.encode(&mut body);
        let lengths = [self.tables.attributes, self.tables.scopes, self.tables.series];
        for number in [self.n_series, self.n_scopes].into_iter().chain(lengths) {
            put_varint(&mut body, u64::from(number));
        }
        put_varint(&mut body, self.groups.len() as u64);
        for (fence, chunks) in self.fences.iter().zip(&self.groups) {
            body.extend_from_slice(&fence.0);
            put_varint(&mut body, chunks.len() as u64);
            let mut next = 0;
            for chunk in chunks {
                put_chunk(&mut body, chunk, &mut next);
            }
        }
        put_varint(&mut body, self.dictionaries.len() as u64);
        let mut next = 0;
        for dictionary in &self.dictionaries {
            put_chunk(&mut body, &dictionary.chunk, &mut next);
            put_varint(&mut body, u64::from(dictionary.n_entries));
        }
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        put_blob(&mut out, &body, packer);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let damaged = |malformed: Malformed| malformed.in_section(SectionId::HEADER);
        let mut reader = Reader::new(bytes);
        if reader.array().map_err(damaged)? != MAGIC {
            return Err(damaged(Malformed("it does not begin as a block does")));
        }
        let version = reader.u8().map_err(damaged)?;
        if version != VERSION {
            return Err(BlockError::UnknownVersion { version, known: VERSION });
        }
        let body = reader.blob(&mut Unpacker::new()).map_err(damaged)?;
        Self::decode_body(&mut Reader::new(&body)).map_err(damaged)
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let summary = BlockSummary::decode(reader)?;
        let (n_series, n_scopes) = (reader.varint_u32()?, reader.varint_u32()?);
        let tables = TableLengths {
            attributes: reader.varint_u32()?,
            scopes: reader.varint_u32()?,
            series: reader.varint_u32()?,
        };
        if BLOCK_SPANS_MAX < summary.spans as usize {
            return Err(Malformed("more spans than a block holds"));
        }
        if summary.spans < n_series || summary.spans < n_scopes {
            return Err(Malformed("more series or scopes than spans"));
        }
        let n_groups = reader.count()?;
        if n_groups != (summary.spans as usize).div_ceil(GROUP_ROWS) {
            return Err(Malformed("the number of row groups does not fit the number of spans"));
        }
        let (mut fences, mut groups) = (Vec::new(), Vec::new());
        for _ in 0..n_groups {
            fences.push(TraceId(reader.array()?));
            groups.push(read_chunks(reader)?);
        }
        let n_dictionaries = reader.count()?;
        let mut dictionaries = Vec::new();
        let mut next = Next::default();
        for _ in 0..n_dictionaries {
            let dictionary = DictionaryChunk { chunk: next.read(reader)?, n_entries: reader.varint_u32()? };
            if DICTIONARY_ENTRIES_MAX < dictionary.n_entries as usize {
                return Err(Malformed("more entries than a dictionary holds"));
            }
            dictionaries.push(dictionary);
        }
        if !reader.is_empty() {
            return Err(Malformed("bytes behind the directory"));
        }
        Ok(Self { summary, n_series, n_scopes, tables, fences, groups, dictionaries })
    }

    /// The chunk of a column in a row group; `None` when all its values there are zero or empty.
    pub(super) fn chunk(&self, group: usize, column: ColumnId) -> Option<Chunk> {
        let chunks = self.groups.get(group)?;
        chunks.binary_search_by_key(&column, |chunk| chunk.column).ok().and_then(|at| chunks.get(at)).copied()
    }

    /// The dictionary of a column.
    pub(super) fn dictionary(&self, column: ColumnId) -> Option<DictionaryChunk> {
        let at = self.dictionaries.binary_search_by_key(&column, |dictionary| dictionary.chunk.column).ok()?;
        self.dictionaries.get(at).copied()
    }

    /// Rows of a row group.
    pub(super) fn group_rows(&self, group: usize) -> usize {
        (self.summary.spans as usize).saturating_sub(group.saturating_mul(GROUP_ROWS)).min(GROUP_ROWS)
    }
}

/// Columns ascend, so their distance is stored; chunks are adjacent, so their length is enough.
fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk, next_column: &mut ColumnId) {
    put_varint(out, u64::from(chunk.column - *next_column));
    put_varint(out, u64::from(chunk.len));
    *next_column = chunk.column.saturating_add(1);
}

#[derive(Default)]
struct Next {
    column: u64,
    offset: u32,
}

impl Next {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<Chunk, Malformed> {
        let column = self.column.saturating_add(reader.varint()?);
        let len = reader.varint_u32()?;
        let chunk = Chunk {
            column: u16::try_from(column).map_err(|_| Malformed("a column number is above 16 bits"))?,
            offset: self.offset,
            len,
        };
        self.column = column + 1;
        self.offset = self.offset.checked_add(len).ok_or(Malformed("chunks pass 4 GiB"))?;
        Ok(chunk)
    }
}

fn read_chunks(reader: &mut Reader<'_>) -> Result<Vec<Chunk>, Malformed> {
    let n_chunks = reader.count()?;
    let mut next = Next::default();
    (0..n_chunks).map(|_| next.read(reader)).collect()
}
