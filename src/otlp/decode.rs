//! The state of one decoding: tables that grow, the arena's additions, the element budget, and what is taken back
//! when a span is refused.
//!
//! `envelope`, `span` and `attribute` read the messages.

use super::budget::{ElementBudget, OverBudget};
use super::outcome::{Counters, Rejection, Rejections, Undecodable, Warning, WarningCounts, Warnings};
use super::value::Frame;
use super::wire::Fault;
use super::{DecodeOptions, Decoded};
use crate::model::{Attribute, Event, Link, Resource, Scope, Span, SpanBatch, Text};

/// Why decoding of a part stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// The bytes are no message.
    Fault(Fault),
    /// The span is well-formed and refused.
    Rejected(Rejection),
    /// The element budget is used up.
    Budget,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<OverBudget> for Stop {
    fn from(_: OverBudget) -> Self {
        Self::Budget
    }
}

/// Where the bytes of a value stand, and what to add to their offsets to get those of the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) base: u32,
}

/// Which spans are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy<'a> {
    /// Every valid one.
    Check(&'a DecodeOptions),
    /// All but these ordinals, ascending; they were checked when they arrived.
    Replay(&'a [u32]),
}

/// Lengths to return to when a span is refused.
#[derive(Clone, Copy, Debug)]
struct Mark {
    attributes: usize,
    events: usize,
    links: usize,
    extra: usize,
    warnings: WarningCounts,
    counters: Counters,
}

/// State of one decoding.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    pub(super) body: &'a [u8],
    /// What could not stay as sent; stands behind the body in the arena.
    extra: Vec<u8>,
    pub(super) policy: Policy<'a>,
    pub(super) resources: Vec<Resource>,
    pub(super) scopes: Vec<Scope>,
    pub(super) spans: Vec<Span>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) events: Vec<Event>,
    pub(super) links: Vec<Link>,
    pub(super) frames: Vec<Frame>,
    pub(super) counters: Counters,
    warnings: WarningCounts,
    rejected: Rejections,
    rejected_ordinals: Vec<u32>,
    /// Ordinal of the next span.
    ordinal: u32,
    budget: ElementBudget,
}

/// Decodes `body`, which stays the front of the batch's arena.
pub(crate) fn run(mut body: Vec<u8>, policy: Policy<'_>) -> Result<Decoded, Undecodable> {
    let budget = match policy {
        Policy::Check(options) => ElementBudget::new(body.len(), options.element_cost_max),
        Policy::Replay(_) => ElementBudget::unlimited(),
    };
    if u32::try_from(body.len()).is_err() {
        return Err(Undecodable::TooManyElements { cost_max: u64::from(u32::MAX) });
    }
    let mut decoder = Decoder::new(&body, policy, budget);
    if let Err(stop) = decoder.request() {
        return Err(undecodable(stop, &body, &budget));
    }
    let Decoder { extra, resources, scopes, spans, attributes, events, links, .. } = decoder;
    let Decoder { counters, warnings, rejected, rejected_ordinals, budget, .. } = decoder;
    body.reserve_exact(extra.len());
    body.extend_from_slice(&extra);
    Ok(Decoded {
        batch: SpanBatch { bytes: body, resources, scopes, spans, attributes, events, links },
        rejected,
        rejected_ordinals,
        warnings: Warnings::from(warnings),
        counters,
        element_cost: budget.used(),
    })
}

fn undecodable(stop: Stop, body: &[u8], budget: &ElementBudget) -> Undecodable {
    let fault = match stop {
        Stop::Fault(fault) => fault,
        Stop::Rejected(_) => Fault::Truncated { at: body.len() },
        Stop::Budget => return budget.refusal(),
    };
    Undecodable::Protobuf { fault, hint: guess(body) }
}

/// What was sent instead of protobuf, as far as the first byte tells.
pub(super) fn guess(body: &[u8]) -> &'static str {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => " (this looks like JSON: declare Content-Type application/json)",
        Some(0x1f) => " (this looks like gzip: declare its content encoding)",
        _ => "",
    }
}

impl<'a> Decoder<'a> {
    fn new(body: &'a [u8], policy: Policy<'a>, budget: ElementBudget) -> Self {
        Self {
            body,
            extra: Vec::new(),
            policy,
            resources: Vec::new(),
            scopes: Vec::new(),
            spans: Vec::new(),
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            frames: Vec::new(),
            counters: Counters::default(),
            warnings: WarningCounts::default(),
            rejected: Rejections::default(),
            rejected_ordinals: Vec::new(),
            ordinal: 0,
            budget,
        }
    }

    /// The body as a source.
    pub(super) fn source(&self) -> Source<'a> {
        Source { bytes: self.body, base: 0 }
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.add(warning, 1);
    }

    pub(super) fn warn_times(&mut self, warning: Warning, n: u32) {
        self.warnings.add(warning, n);
    }

    /// Takes `cost` off the element budget, before the memory is used.
    pub(super) fn charge(&mut self, cost: u64) -> Result<(), Stop> {
        Ok(self.budget.charge(cost)?)
    }

    /// Appends rewritten bytes to the arena.
    pub(super) fn push_extra(&mut self, bytes: &[u8]) -> Result<Text, Stop> {
        let start = u32::try_from(self.body.len() + self.extra.len()).map_err(|_| Stop::Budget)?;
        let len = u32::try_from(bytes.len()).map_err(|_| Stop::Budget)?;
        let _end = start.checked_add(len).ok_or(Stop::Budget)?;
        self.extra.extend_from_slice(bytes);
        Ok(Text { start, len })
    }

    /// The bytes of a text of the arena; a text never straddles its two halves.
    pub(super) fn arena(&self, text: Text) -> &[u8] {
        let (start, len) = (text.start as usize, text.len as usize);
        let (half, start) = match start.checked_sub(self.body.len()) {
            Some(start) => (self.extra.as_slice(), start),
            None => (self.body, start),
        };
        half.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    pub(super) fn span_or_rejection(&mut self, piece: Text, scope: u32) -> Result<(), Stop> {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        if let Policy::Replay([next, rest @ ..]) = self.policy
            && *next == ordinal
        {
            self.policy = Policy::Replay(rest);
            return Ok(());
        }
        let mark = self.mark();
        let reason = match self.span(piece, scope) {
            Ok(span) => {
                self.spans.push(span);
                return Ok(());
            }
            Err(Stop::Fault(_)) => Rejection::MalformedSpan,
            Err(Stop::Rejected(reason)) => reason,
            Err(Stop::Budget) => return Err(Stop::Budget),
        };
        self.roll_back(&mark);
        self.rejected.add(reason);
        self.rejected_ordinals.push(ordinal);
        Ok(())
    }

    fn mark(&self) -> Mark {
        Mark {
            attributes: self.attributes.len(),
            events: self.events.len(),
            links: self.links.len(),
            extra: self.extra.len(),
            warnings: self.warnings,
            counters: self.counters,
        }
    }

    fn roll_back(&mut self, mark: &Mark) {
        self.attributes.truncate(mark.attributes);
        self.events.truncate(mark.events);
        self.links.truncate(mark.links);
        self.extra.truncate(mark.extra);
        self.warnings = mark.warnings;
        self.counters = mark.counters;
    }
}

pub(super) fn row_count<T>(table: &[T]) -> u32 {
    // A row costs more than a byte of the element budget, which is below 2^32 rows.
    u32::try_from(table.len()).unwrap_or(u32::MAX)
}
