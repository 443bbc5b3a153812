//! Why a text is no filter.

use std::fmt;

/// Characters of the text that an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// A text that is no filter or field, where it goes wrong and what would be right there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct TraceQlError {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong at a place of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Something else would have to stand there.
    Unexpected {
        /// As shown.
        found: String,
        /// In words.
        expected: &'static str,
        /// What to write instead, where it can be told.
        remedy: Option<String>,
    },
    /// TraceQL, but not of one span.
    Unsupported {
        /// As written.
        what: String,
        /// The parameter that does not take it.
        place: Place,
        /// Why, or what to do.
        because: &'static str,
    },
    /// Values that the operator does not take.
    Types {
        /// The operation, normalised.
        operation: String,
        /// In words.
        fault: String,
    },
    /// A word that is no number, text or pattern of its kind.
    Word {
        /// As shown.
        word: String,
        /// In words.
        fault: String,
    },
    /// More than `limits::TRACEQL_BYTES_MAX`.
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// More than `limits::TRACEQL_DEPTH_MAX`.
    TooDeep,
}

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `where=`.
    Where,
    /// `by=`.
    By,
    /// `q=` of metrics.
    Metrics,
    /// `q=` of a search.
    Search,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Where => "where=",
            Self::By => "by=",
            Self::Metrics => "a metrics query",
            Self::Search => "a search",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { found, expected, remedy } => {
                write!(f, "found {found}, expected {expected}")?;
                remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::Unsupported { what, place, because } => write!(f, "{what} is not supported in {place}; {because}"),
            Self::Types { operation, fault } => write!(f, "{operation}: {fault}"),
            Self::Word { word, fault } => write!(f, "{word}: {fault}"),
            Self::TooLong { bytes } => {
                write!(f, "{bytes} bytes are too many, at most {}", crate::limits::TRACEQL_BYTES_MAX)
            }
            Self::TooDeep => write!(
                f,
                "more than {} operators or brackets are inside each other; chains of && or || count as one",
                crate::limits::TRACEQL_DEPTH_MAX
            ),
        }
    }
}

impl TraceQlError {
    /// The error for byte `at` of `text`.
    pub(super) fn at(text: &str, at: usize, problem: Problem) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let lines = before.matches('\n').count() + 1;
        let chars = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { line: narrow(lines), column: narrow(chars), problem }
    }
}

/// A piece of the text as errors repeat it: in backquotes, cut when it is long.
pub(super) fn shown(piece: &str) -> String {
    let cut: String = piece.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < piece.len() { ".." } else { "" };
    format!("`{cut}{dots}`")
}
