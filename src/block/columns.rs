//! The columns of a block: a fixed set, then one per frequent attribute.

use super::codec::{Contexts, RowIds};
use crate::model::Value;

/// Rows of a row group; the last one of a block may have fewer.
pub(super) const GROUP_ROWS: usize = 4096;
/// Events or links of one row group: what the limits allow a group of the fullest spans.
pub(super) const GROUP_ITEMS_MAX: usize = GROUP_ROWS * crate::limits::SPAN_EVENTS_MAX;

/// Attribute values of one row group: bounds what a reader of damaged tables allocates.
pub(super) const GROUP_VALUES_MAX: usize = 16 * 1024 * 1024;

/// Entries of a dictionary: a reader takes a list of that length on the header's word alone.
pub(super) const DICTIONARY_ENTRIES_MAX: usize = GROUP_ITEMS_MAX;

/// Number of a column: below `FIRST_DYNAMIC` those named here, from there on attributes.
pub(super) type ColumnId = u16;

/// Runs of rows of one trace: lengths and ids.
pub(super) const TRACE: ColumnId = 0;
/// 8 bytes per row.
pub(super) const SPAN_ID: ColumnId = 1;
/// 0 root, 1 raw in `PARENT_RAW`, else 2 + zigzag(row - row of the parent in this group).
pub(super) const PARENT: ColumnId = 2;
/// 8 bytes per row whose parent is not in the group.
pub(super) const PARENT_RAW: ColumnId = 3;
/// Start of the first row of each run.
pub(super) const TRACE_START: ColumnId = 4;
/// Start since the row before, for every other row.
pub(super) const START_DELTA: ColumnId = 5;
/// End minus start, modulo 2^64.
pub(super) const DURATION: ColumnId = 6;
/// Row in the table of series.
pub(super) const SERIES: ColumnId = 7;
/// Which of name (1), kind (2) and status code (4) differ from the series.
pub(super) const EXCEPTIONS: ColumnId = 8;
/// Raw names of the rows with exception 1.
pub(super) const RAW_NAME: ColumnId = 9;
/// Raw kinds of the rows with exception 2.
pub(super) const RAW_KIND: ColumnId = 10;
/// Raw status codes of the rows with exception 4.
pub(super) const RAW_STATUS: ColumnId = 11;
/// Row in the table of scopes.
pub(super) const SCOPE: ColumnId = 12;
/// OTLP flags.
pub(super) const FLAGS: ColumnId = 13;
/// Shape of the attributes.
pub(super) const SHAPE: ColumnId = 14;
/// W3C tracestate.
pub(super) const TRACE_STATE: ColumnId = 15;
/// Status message.
pub(super) const STATUS_MESSAGE: ColumnId = 16;
/// Dropped attributes.
pub(super) const DROPPED_ATTRIBUTES: ColumnId = 17;
/// Dropped events.
pub(super) const DROPPED_EVENTS: ColumnId = 18;
/// Dropped links.
pub(super) const DROPPED_LINKS: ColumnId = 19;
/// Number of events.
pub(super) const EVENT_COUNT: ColumnId = 20;
/// Per event: zigzag(time - start of the span).
pub(super) const EVENT_TIME: ColumnId = 21;
/// Per event.
pub(super) const EVENT_NAME: ColumnId = 22;
/// Per event.
pub(super) const EVENT_SHAPE: ColumnId = 23;
/// Per event.
pub(super) const EVENT_DROPPED: ColumnId = 24;
/// Number of links.
pub(super) const LINK_COUNT: ColumnId = 25;
/// Per link, 16 bytes.
pub(super) const LINK_TRACE: ColumnId = 26;
/// Per link, 8 bytes.
pub(super) const LINK_SPAN: ColumnId = 27;
/// Per link.
pub(super) const LINK_TRACE_STATE: ColumnId = 28;
/// Per link.
pub(super) const LINK_SHAPE: ColumnId = 29;
/// Per link.
pub(super) const LINK_DROPPED: ColumnId = 30;
/// Per link.
pub(super) const LINK_FLAGS: ColumnId = 31;
/// Numbers of attributes too rare for a column of their own, in the order of rows and of attributes in a row.
pub(super) const RARE_NUMBERS: ColumnId = 32;
/// Texts of attributes too rare for a column of their own.
pub(super) const RARE_TEXTS: ColumnId = 33;
/// The first column of an attribute.
pub(super) const FIRST_DYNAMIC: ColumnId = 64;
/// Columns of attributes in a block: bounds the directory. The most frequent attributes get them.
pub(super) const DYNAMIC_MAX: usize = 512;
/// An attribute with fewer values in the block shares the rare columns.
pub(super) const DYNAMIC_VALUES_MIN: u32 = 64;

/// Names of the fixed columns, by number.
const NAMES: [&str; 34] = [
    "trace",
    "span_id",
    "parent",
    "parent_raw",
    "trace_start",
    "start_delta",
    "duration",
    "series",
    "exceptions",
    "raw_name",
    "raw_kind",
    "raw_status",
    "scope",
    "flags",
    "shape",
    "trace_state",
    "status_message",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
    "event_count",
    "event_time",
    "event_name",
    "event_shape",
    "event_dropped",
    "link_count",
    "link_trace",
    "link_span",
    "link_trace_state",
    "link_shape",
    "link_dropped",
    "link_flags",
    "rare_numbers",
    "rare_texts",
];

/// The name of a fixed column, for reports.
pub(super) fn name_of_fixed(column: ColumnId) -> &'static str {
    NAMES.get(usize::from(column)).copied().unwrap_or("unknown")
}

/// How the values of a column lie in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of known length, as they are.
    Raw,
    /// Numbers without a pattern.
    Ints,
    /// Numbers that may follow from the series or scope.
    Numbers,
    /// The scopes of the rows.
    Scopes,
    /// Byte strings.
    Texts,
}

/// The kind of a fixed column.
pub(super) fn kind_of_fixed(column: ColumnId) -> Kind {
    match column {
        TRACE | SPAN_ID | PARENT_RAW | LINK_TRACE | LINK_SPAN => Kind::Raw,
        TRACE_START | START_DELTA | DURATION | EVENT_TIME => Kind::Ints,
        SCOPE => Kind::Scopes,
        RAW_NAME | TRACE_STATE | STATUS_MESSAGE | EVENT_NAME | LINK_TRACE_STATE | RARE_TEXTS => Kind::Texts,
        _ => Kind::Numbers,
    }
}

/// What may predict the values of a column: only what is read before it.
pub(super) fn contexts_of(column: ColumnId, contexts: Contexts<'_>) -> Contexts<'_> {
    match column {
        SERIES => Contexts { traces: contexts.traces, ..Contexts::NONE },
        PARENT => Contexts { traces: contexts.traces, series: contexts.series, ..Contexts::NONE },
        SCOPE => Contexts { scopes: RowIds::NONE, callers: RowIds::NONE, ..contexts },
        _ if column < FIRST_DYNAMIC => Contexts { parents: &[], ..contexts },
        _ => contexts,
    }
}

/// Whose attribute it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Owner {
    Span = 0,
    Event = 1,
    Link = 2,
}

/// Type of an attribute's value, as numbered in the table of attributes and in inline values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ValueType {
    Empty = 0,
    String = 1,
    Bool = 2,
    Int = 3,
    Double = 4,
    Bytes = 5,
    Nested = 6,
}

impl ValueType {
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Empty => Self::Empty,
            Value::String(_) => Self::String,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Double(_) => Self::Double,
            Value::Bytes(_) => Self::Bytes,
            Value::Nested(_) => Self::Nested,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Empty, Self::String, Self::Bool, Self::Int, Self::Double, Self::Bytes, Self::Nested]
            .into_iter()
            .find(|value_type| *value_type as u8 == number)
    }

    /// The kind of its column; `None` for a value that says everything by its type.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Empty => None,
            Self::Bool | Self::Int | Self::Double => Some(Kind::Numbers),
            Self::String | Self::Bytes | Self::Nested => Some(Kind::Texts),
        }
    }
}
