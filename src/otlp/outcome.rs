//! What decoding says about a request: reasons for refusing a span, warnings, counters, and the message to the sender.
//!
//! The codes are stable words: senders read them, and they are labels of metrics.

use std::fmt::Write as _;

use super::wire::Fault;
use crate::limits::ERROR_MESSAGE_BYTES_MAX;

/// Names of unknown keys kept for the message.
const KEY_NAMES_MAX: usize = 3;
/// Bytes of such a name in the message.
const KEY_NAME_BYTES_MAX: usize = 40;

/// The bytes are no request at all; nothing of them is kept. The sender must not try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// A fault outside the bytes of any span.
    #[error("undecodable protobuf: {fault}; send an ExportTraceServiceRequest{hint}")]
    Protobuf {
        /// What is wrong and where.
        fault: Fault,
        /// Empty, or a guess at what was sent instead; starts with a space.
        hint: &'static str,
    },
    /// The same for a Zipkin request.
    #[error("undecodable protobuf: {fault}; send a Zipkin ListOfSpans{hint}")]
    ZipkinProtobuf {
        /// What is wrong and where.
        fault: Fault,
        /// Empty, or a guess at what was sent instead; starts with a space.
        hint: &'static str,
    },
    /// The text is no OTLP/JSON or Zipkin request.
    #[error("undecodable JSON at line {line}, byte {byte}: expected {expected}{hint}")]
    Json {
        /// From 1.
        line: usize,
        /// From 0, counted over the whole body.
        byte: usize,
        /// What should have stood there.
        expected: &'static str,
        /// Empty, or a guess at what was sent instead; starts with a space.
        hint: &'static str,
    },
    /// So many tiny elements that they would need far more memory than their bytes. Maps to `RESOURCE_EXHAUSTED`
    /// without a retry hint, all others to `INVALID_ARGUMENT`.
    #[error("the request needs more than {cost_max} bytes in memory for its elements; send smaller batches")]
    TooManyElements {
        /// The bound that was passed, in bytes.
        cost_max: u64,
    },
    /// Elements that need more memory than this process ever has for requests. Maps as `TooManyElements`.
    #[error(
        "the request needs more than the {cost_max} bytes of memory that any request may take; send smaller batches or raise --memory"
    )]
    NeverFits {
        /// The bound that was passed, in bytes.
        cost_max: u64,
    },
}

/// Why a span was refused while the rest of its request was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Trace id not 16 bytes, or all zero.
    InvalidTraceId,
    /// Span id not 8 bytes, or all zero.
    InvalidSpanId,
    /// A framing fault inside the bytes of the span.
    MalformedSpan,
    /// Ended before everything that is kept.
    OutsideRetention,
    /// Above `limits::SPAN_BYTES_MAX` even with its values cut.
    SpanTooLarge,
}

impl Rejection {
    /// All reasons, sorted by code.
    pub const ALL: [Self; 5] =
        [Self::InvalidSpanId, Self::InvalidTraceId, Self::MalformedSpan, Self::OutsideRetention, Self::SpanTooLarge];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidTraceId => "invalid_trace_id",
            Self::InvalidSpanId => "invalid_span_id",
            Self::MalformedSpan => "malformed_span",
            Self::OutsideRetention => "outside_retention",
            Self::SpanTooLarge => "span_too_large",
        }
    }

    fn what_to_do(self) -> &'static str {
        match self {
            Self::InvalidTraceId => "trace ids are 16 bytes, not all zero",
            Self::InvalidSpanId => "span ids are 8 bytes, not all zero",
            Self::MalformedSpan => "check the exporter's encoding",
            Self::OutsideRetention => "send spans sooner or raise the retention",
            Self::SpanTooLarge => "set attribute limits in the SDK",
        }
    }
}

/// What was kept, but not quite as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// JSON bytes that are no base64; the value is empty.
    BadBase64,
    /// A link without valid ids, dropped.
    BadLink,
    /// A parent id of a wrong length; the span is kept as a root.
    BadParent,
    /// Spans in `InstrumentationLibrarySpans`, ignored.
    DeprecatedField,
    /// Nesting beyond `limits::VALUE_DEPTH_MAX`, made empty.
    Depth,
    /// A key that its list already has; both are kept.
    DuplicateKey,
    /// An attribute without a key, dropped.
    EmptyKey,
    /// A JSON enum given by name; unknown names are 0.
    EnumName,
    /// A text that is no UTF-8, kept as it is.
    InvalidUtf8,
    /// Attributes, events or links beyond their limit, dropped.
    LimitApplied,
    /// A span without start or end, in no histogram.
    MissingTime,
    /// A span that ends before it starts, in no histogram.
    NegativeDuration,
    /// Nothing was found under the keys of OTLP/JSON.
    NoSpans,
    /// A `service.name` that is no string.
    ServiceNameType,
    /// A reference into a string table, which traces do not have; empty.
    Strindex,
    /// A Zipkin tag whose value is no string, kept as its JSON text.
    StringifiedTag,
    /// A text or value cut to its limit.
    Truncated,
    /// JSON keys in snake_case, ignored.
    UnknownKeys,
}

impl Warning {
    /// All warnings, sorted by code.
    pub const ALL: [Self; 18] = [
        Self::BadBase64,
        Self::BadLink,
        Self::BadParent,
        Self::DeprecatedField,
        Self::Depth,
        Self::DuplicateKey,
        Self::EmptyKey,
        Self::EnumName,
        Self::InvalidUtf8,
        Self::LimitApplied,
        Self::MissingTime,
        Self::NegativeDuration,
        Self::NoSpans,
        Self::ServiceNameType,
        Self::Strindex,
        Self::StringifiedTag,
        Self::Truncated,
        Self::UnknownKeys,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadBase64 => "bad_base64",
            Self::BadLink => "bad_link",
            Self::BadParent => "bad_parent",
            Self::DeprecatedField => "deprecated_field",
            Self::Depth => "depth",
            Self::DuplicateKey => "duplicate_key",
            Self::EmptyKey => "empty_key",
            Self::EnumName => "enum_name",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::LimitApplied => "limit_applied",
            Self::MissingTime => "missing_time",
            Self::NegativeDuration => "negative_duration",
            Self::NoSpans => "no_spans",
            Self::ServiceNameType => "service_name_type",
            Self::Strindex => "strindex",
            Self::StringifiedTag => "stringified_tag",
            Self::Truncated => "truncated",
            Self::UnknownKeys => "unknown_keys",
        }
    }
}

/// Refused spans by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejections([u32; Rejection::ALL.len()]);

impl Rejections {
    /// Refused for `reason`.
    pub fn count(&self, reason: Rejection) -> u32 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// Refused for any reason.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub(crate) fn add(&mut self, reason: Rejection) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// Counts of warnings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WarningCounts([u32; Warning::ALL.len()]);

impl WarningCounts {
    pub(crate) fn add(&mut self, warning: Warning, n: u32) {
        if let Some(count) = self.0.get_mut(warning as usize) {
            *count = count.saturating_add(n);
        }
    }

    fn count(&self, warning: Warning) -> u32 {
        self.0.get(warning as usize).copied().unwrap_or_default()
    }
}

/// Warnings by code, of the spans that were kept and what they hang on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    counts: WarningCounts,
    /// The first few keys behind `unknown_keys`, harmless to print.
    key_names: Vec<String>,
}

impl From<WarningCounts> for Warnings {
    fn from(counts: WarningCounts) -> Self {
        Self { counts, key_names: Vec::new() }
    }
}

impl Warnings {
    /// How often `warning` was given.
    pub fn count(&self, warning: Warning) -> u32 {
        self.counts.count(warning)
    }

    /// No warning at all.
    pub fn is_empty(&self) -> bool {
        self.counts == WarningCounts::default()
    }

    /// Adds those of an earlier step, as of a translation.
    pub fn merge(&mut self, earlier: Self) {
        for warning in Warning::ALL {
            self.counts.add(warning, earlier.count(warning));
        }
        self.key_names.extend(earlier.key_names);
        self.key_names.truncate(KEY_NAMES_MAX);
    }

    pub(crate) fn add(&mut self, warning: Warning, n: u32) {
        self.counts.add(warning, n);
    }

    /// Counts an unknown key and remembers its name if it is one of the first.
    pub(crate) fn unknown_key(&mut self, name: &str) {
        self.counts.add(Warning::UnknownKeys, 1);
        if KEY_NAMES_MAX <= self.key_names.len() {
            return;
        }
        let printable = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let name: String = name.chars().filter(printable).take(KEY_NAME_BYTES_MAX).collect();
        if !self.key_names.contains(&name) {
            self.key_names.push(name);
        }
    }

    fn write(&self, message: &mut String) {
        let mut separator = "";
        for warning in Warning::ALL {
            let count = self.count(warning);
            if count == 0 {
                continue;
            }
            let _written = write!(message, "{separator}{}={count}", warning.code());
            if warning == Warning::UnknownKeys && !self.key_names.is_empty() {
                let _written = write!(message, " ({})", self.key_names.join(" "));
            }
            separator = ", ";
        }
    }
}

/// What is only counted; the sender is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Resources whose `service.name` is missing or empty.
    pub service_name_missing: u32,
    /// Kept spans with an index time more than `limits::FUTURE_SECS_MAX` ahead of their arrival.
    pub future_spans: u32,
    /// Resources without scopes and scopes without spans.
    pub empty_envelopes: u32,
    /// Entity references without a type, or to keys that their resource does not have; they stay as sent.
    pub entity_ref_missing: u32,
}

/// The message of an answer: `None` when all is well, at most `limits::ERROR_MESSAGE_BYTES_MAX` bytes.
pub(crate) fn message(rejected: &Rejections, kept: usize, warnings: &Warnings) -> Option<String> {
    let total = rejected.total();
    if total == 0 && warnings.is_empty() {
        return None;
    }
    let mut message = String::new();
    if 0 < total {
        write_rejections(rejected, kept, &mut message);
    }
    if !warnings.is_empty() {
        message.push_str(if message.is_empty() { "stored with warnings: " } else { "; warnings: " });
        warnings.write(&mut message);
    }
    // Only ASCII is written, so any length is a boundary.
    message.truncate(ERROR_MESSAGE_BYTES_MAX);
    Some(message)
}

fn write_rejections(rejected: &Rejections, kept: usize, message: &mut String) {
    let total = rejected.total();
    let _written = write!(message, "rejected {total} of {} spans: ", kept.saturating_add(total as usize));
    let mut separator = "";
    for reason in Rejection::ALL {
        let count = rejected.count(reason);
        if 0 < count {
            let _written = write!(message, "{separator}{}={count}", reason.code());
            separator = ", ";
        }
    }
    let most = Rejection::ALL.into_iter().max_by_key(|reason| rejected.count(*reason));
    if let Some(most) = most {
        let _written = write!(message, "; {}", most.what_to_do());
    }
    let other = rejected.count(Rejection::OutsideRetention).max(rejected.count(Rejection::SpanTooLarge));
    if kept == 0 && other == 0 {
        message.push_str("; metrics or logs sent here (wrong signal?) look like this too");
    }
}
