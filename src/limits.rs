//! Every bound of the system that is not a setting, with its unit and its reason.

/// Nesting of attribute values kept exactly; deeper values become empty (SDK default depth limit is 64).
pub const VALUE_DEPTH_MAX: usize = 64;
/// JSON nesting anywhere in a request, unknown fields included.
pub const JSON_DEPTH_MAX: usize = 10_000;
/// Nesting of unknown protobuf groups.
pub const GROUP_DEPTH_MAX: usize = 64;
/// Bytes of one value, key, name, URL or message; longer ones are cut at a UTF-8 boundary.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a tracestate; cut as W3C says.
pub const TRACE_STATE_BYTES_MAX: usize = 4 * 1024;
/// Attributes of a span or resource; the first ones are kept.
pub const SPAN_ATTRIBUTES_MAX: usize = 1_024;
/// Attributes of an event, link or scope; the first ones are kept.
pub const EVENT_ATTRIBUTES_MAX: usize = 128;
/// Events of a span; the first ones are kept.
pub const SPAN_EVENTS_MAX: usize = 1_024;
/// Links of a span; the first ones are kept.
pub const SPAN_LINKS_MAX: usize = 1_024;
/// Bytes of one encoded span.
pub const SPAN_BYTES_MAX: usize = 1024 * 1024;
/// Element cost allowed on top of `ELEMENT_COST_PER_BYTE` for each byte of the request.
pub const ELEMENT_COST_BASE: usize = 16 * 1024 * 1024;
/// See `ELEMENT_COST_BASE`: a realistic request costs about 3 bytes per byte, one of empty spans 130.
pub const ELEMENT_COST_PER_BYTE: usize = 8;
/// Element cost of one request allowed for each byte of the budget that all requests share. A larger one is refused for
/// good: waiting would not help.
///
/// The budget is a quarter of `--memory` and counts bytes as they are received, of which a request decoded takes more:
/// about 3 for each when it is realistic (64 MiB of them cost 185 MiB). The longest request allowed may fill the whole
/// budget, so anything below 3 would refuse ordinary requests that are within their limit. 4 leaves a third of room for
/// denser ones and is all of `--memory`, which no single request may need.
pub const ELEMENT_COST_PER_BUDGET_BYTE: usize = 4;
/// Bytes of a request that the settings may allow. What a journal would not read back is not to be acknowledged.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of a message to a client: longer ones break HTTP/2 header limits of real clients.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1024;
/// Spans of one trace in one answer; more are announced, not sent.
pub const TRACE_SPANS_MAX: usize = 100_000;
/// Traces of one answer of whole traces: what Jaeger's page lets people ask for at most.
pub const SEARCH_TRACES_MAX: usize = 1_500;
/// Bytes of one answer of whole traces, after which no other trace begins: a thousand ordinary ones of 30 spans fit, and what
/// a page can still draw.
pub const SEARCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Seconds after which an answer of whole traces holds those that were read.
pub const SEARCH_SECS_MAX: u64 = 30;
/// Series of one trace whose spans get a rank; the spans of more are answered without. A trace through 100 services with 20
/// kinds of span each fits.
pub const TRACE_SERIES_RANKED_MAX: usize = 2_000;
/// Seconds of the window that spans are ranked in: short enough to compare with the same load and release, long enough for
/// a p99 of a series with a span every 10 s.
pub const RANK_WINDOW_SECS: u64 = 3_600;
/// Spans of a block.
pub const BLOCK_SPANS_MAX: usize = 64 * 1024;
/// Bytes of one value in sled: `segment_size` / 128, above which pages leave the log for files of their own.
pub const PAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a filter or field of TraceQL: what URLs of common clients and proxies carry at most.
pub const TRACEQL_BYTES_MAX: usize = 16 * 1024;
/// Operators of a TraceQL filter inside each other, and brackets: hand-written filters stay below 10, and this many frames
/// of our parser fit on any stack. A chain of `&&` or `||` is one operator, however long.
pub const TRACEQL_DEPTH_MAX: usize = 100;
/// Bytes of a compiled regular expression of TraceQL: the program of one word of Unicode classes takes some 100 KiB.
pub const TRACEQL_REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Seconds of one latency slot.
pub const SLOT_SECS: u64 = 10;
/// Traces pinned of one series and one hour, once their spans leave: the slowest of each octave of latency, from the slowest
/// octave down. Twelve octaves are from 1 ms to 4 s; a trace of 20 spans of 50 bytes makes that 12 KB an hour at most.
pub const LONG_TERM_EXEMPLARS_MAX: usize = 12;
/// Seconds between the spans of two partitions within which one asks the other what traces it shows: spans of a trace that
/// are further apart are not kept together.
pub const NEIGHBOUR_SECS: u64 = 3_600;
/// The same for every trace of a partition that still has all its spans: it costs a look at each of them.
pub const STRADDLING_SECS: u64 = 60;
/// Seconds for which roll-ups of a minute are kept once their spans have left: a month, which is what people scroll through.
pub const ROLLUP_MINUTES_SECS: u64 = 30 * 86_400;
/// The same for those of ten minutes: a quarter of a year. Hours and days stay.
pub const ROLLUP_TEN_MINUTES_SECS: u64 = 90 * 86_400;
/// Neighbouring remnants that become one: of the hours of a year some 40 directories stay.
pub const REMNANTS_MERGED_AT_ONCE: usize = 16;
/// Bytes above which remnants are not merged: what is merged has to fit into memory, table by table, some ten times larger.
pub const REMNANT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Remnants written anew in one step of retention, which also seals: so that sealing waits for seconds at most.
pub const REWRITES_PER_STEP: usize = 4;
/// Traces pinned by hand: the file is written as a whole each time, 12 MiB at most.
pub const PINS_MAX: usize = 10_000;
/// Seconds for which a trace is pinned when nothing is said: as long as roll-ups by default, 400 days.
pub const PIN_SECS: u64 = 400 * 86_400;
/// Bytes of the note of a pin.
pub const PIN_NOTE_BYTES_MAX: usize = 1_024;
/// How far ahead of its arrival a span may be counted (clocks that run ahead).
pub const FUTURE_SECS_MAX: u64 = 3_600;

/// Name of what is counted without a series of its own: a span name, a service, a value of a peel dimension.
pub const OVERFLOW: &str = "__overflow__";
/// Peel dimensions that may be set: each counts every entry span once more.
pub const PEEL_DIMENSIONS_MAX: usize = 16;
/// Values of one peel dimension that a service has families of, in each block; the others are one family, `OVERFLOW`.
pub const PEEL_VALUES_MAX: u32 = 256;
/// Series of the service graph in one block, two for each edge and outcome; of the calls beyond them the server is `OVERFLOW`.
pub const EDGES_MAX: usize = 4_096;
/// Series by name of one service in the roll-ups of a partition; the others are counted under the name `OVERFLOW`.
pub const SERVICE_SERIES_MAX: usize = 2_000;
/// Series in the roll-ups of a partition, families included; of services beyond it all is counted under `OVERFLOW`.
/// 10,000 are what a partition's roll-ups are measured with.
pub const SERIES_MAX: usize = 20_000;

const _: () = assert!(3 < ELEMENT_COST_PER_BUDGET_BYTE, "a realistic request as long as the budget must be admitted");
const _: () = assert!(RANK_WINDOW_SECS.is_multiple_of(2 * SLOT_SECS), "half of the window must be whole slots");
const _: () =
    assert!(STRADDLING_SECS <= NEIGHBOUR_SECS, "who is asked about all traces is asked about the pinned ones");
const _: () = assert!(ROLLUP_MINUTES_SECS < ROLLUP_TEN_MINUTES_SECS, "the finer ones go first");
const _: () = assert!(SPAN_BYTES_MAX >= TEXT_BYTES_MAX, "one longest value must fit into a span");
