//! What each part of a block takes: for reports, not for questions.

use super::super::SectionId;
use super::super::columns::{ColumnId, FIRST_DYNAMIC, RARE_NUMBERS, RARE_TEXTS, name_of_fixed};
use super::super::error::BlockError;
use super::super::header::Header;
use super::Sections;
use super::tables::Tables;

/// Bytes of one part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSize {
    /// `header`, `filter`, `tables`, `skip index`, the name of a fixed column, or the key of an attribute and the type of its values.
    pub name: String,
    /// In the row groups; of a part that is no column, all of it.
    pub bytes: u64,
    /// In the dictionaries.
    pub dictionary_bytes: u64,
}

/// The parts of a block: sections that are no columns, then the columns, ascending.
pub(super) fn sizes(header: &Header, sections: &dyn Sections) -> Result<Vec<PartSize>, BlockError> {
    let mut parts = Vec::new();
    let sections_named = [
        (SectionId::HEADER, "header"),
        (SectionId::FILTER, "filter"),
        (SectionId::TABLES, "tables"),
        (SectionId::SKIP, "skip index"),
    ];
    for (section, name) in sections_named {
        let bytes = u64::from(sections.section_len(section)?);
        parts.push(PartSize { name: name.to_owned(), bytes, dictionary_bytes: 0 });
    }
    let tables = Tables::read(header, sections)?;
    let shapes = tables.shapes()?;
    let in_groups = header.groups.iter().flatten().map(|chunk| chunk.column);
    let mut columns: Vec<ColumnId> =
        in_groups.chain(header.dictionaries.iter().map(|dictionary| dictionary.chunk.column)).collect();
    columns.sort_unstable();
    columns.dedup();
    for column in columns {
        let attribute = || {
            let of_column =
                shapes.attributes.iter().find(|attribute| attribute.column.is_some_and(|(at, _)| at == column));
            of_column.map(|attribute| {
                format!("{} {:?}", String::from_utf8_lossy(attribute.key), attribute.value_type).to_lowercase()
            })
        };
        let name = match column {
            RARE_NUMBERS | RARE_TEXTS => None,
            column if column < FIRST_DYNAMIC => None,
            _ => attribute(),
        };
        let chunks = header.groups.iter().flatten().filter(|chunk| chunk.column == column);
        parts.push(PartSize {
            name: name.unwrap_or_else(|| name_of_fixed(column).to_owned()),
            bytes: chunks.map(|chunk| u64::from(chunk.len)).sum(),
            dictionary_bytes: header.dictionary(column).map_or(0, |dictionary| u64::from(dictionary.chunk.len)),
        });
    }
    Ok(parts)
}
