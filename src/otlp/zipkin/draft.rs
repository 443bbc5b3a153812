//! A Zipkin span on its way into OTLP, and the OTLP request that it goes into: what a field of Zipkin becomes is said
//! here, for both encodings.

use super::super::MALFORMED;
use super::super::budget::{ElementBudget, OverBudget};
use super::super::outcome::Warnings;
use super::super::writer::MessageWriter;

/// Nominal bytes of a resource with one scope.
const COST_SERVICE: u64 = 80 + 128;
/// Nominal bytes of a span.
pub(super) const COST_SPAN: u64 = 264;
/// Nominal bytes of a tag.
pub(super) const COST_TAG: u64 = 64;
/// Nominal bytes of an annotation.
pub(super) const COST_ANNOTATION: u64 = 64;

/// What endpoints become, unless a tag says it already.
const ENDPOINT_KEYS: [&str; 5] =
    ["network.local.address", "network.local.port", "peer.service", "network.peer.address", "network.peer.port"];
/// The tag in which OTLP's status code travels through Zipkin.
const STATUS_CODE_TAG: &[u8] = b"otel.status_code";
/// A tag whose presence means a failure; its value is a message.
const ERROR_TAG: &[u8] = b"error";

/// Bit 0 of the flags: sampled (W3C Trace Context).
const FLAG_SAMPLED: u32 = 1;
/// `STATUS_CODE_ERROR` of OTLP.
const STATUS_ERROR: u64 = 2;

/// `SpanKind` of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanKind {
    Unspecified = 0,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// One side of a span; empty texts and port 0 are unknown.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    pub(super) service: Vec<u8>,
    pub(super) ipv4: Vec<u8>,
    pub(super) ipv6: Vec<u8>,
    pub(super) port: u16,
}

impl Endpoint {
    fn address(&self) -> &[u8] {
        if self.ipv4.is_empty() { &self.ipv6 } else { &self.ipv4 }
    }
}

/// A span while it is read. Fields may come in any order, and twice: the last one counts.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Fields of the OTLP span that need nothing else to be known.
    fields: MessageWriter,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    /// Nanoseconds, 0 when missing.
    start: u64,
    /// Nanoseconds, 0 when missing.
    duration: u64,
    error: Option<Vec<u8>>,
    status_code: Option<u64>,
    /// Those of `ENDPOINT_KEYS` that came as tags.
    tagged: [bool; ENDPOINT_KEYS.len()],
}

impl Draft {
    /// An id of 8 bytes is one of 16 that begins with zeros.
    pub(super) fn trace_id(&mut self, id: &[u8]) {
        match <[u8; 8]>::try_from(id) {
            Ok(low) => self.fields.bytes(1, &u128::from(u64::from_be_bytes(low)).to_be_bytes()),
            Err(_) => self.fields.bytes(1, id),
        }
    }

    pub(super) fn span_id(&mut self, id: &[u8]) {
        self.fields.bytes(2, id);
    }

    pub(super) fn parent_id(&mut self, id: &[u8]) {
        self.fields.bytes(4, id);
    }

    pub(super) fn name(&mut self, name: &[u8]) {
        self.fields.bytes(5, name);
    }

    pub(super) fn kind(&mut self, kind: SpanKind) {
        self.fields.varint(6, kind as u64);
    }

    /// Microseconds since 1970; not above 0 is missing.
    pub(super) fn timestamp(&mut self, micros: i128) {
        self.start = nanos(micros);
    }

    /// Microseconds; not above 0 is missing.
    pub(super) fn duration(&mut self, micros: i128) {
        self.duration = nanos(micros);
    }

    /// A trace that someone asked for was sampled.
    pub(super) fn debug(&mut self, debug: bool) {
        self.fields.fixed32(16, if debug { FLAG_SAMPLED } else { 0 });
    }

    pub(super) fn annotation(&mut self, micros: i128, value: &[u8]) {
        self.fields.open(11);
        self.fields.fixed64(1, nanos(micros));
        self.fields.bytes(2, value);
        self.fields.close();
    }

    pub(super) fn tag(&mut self, key: &[u8], value: &[u8]) {
        if key == ERROR_TAG {
            self.error = Some(value.to_vec());
            return;
        }
        if key == STATUS_CODE_TAG
            && let Some(code) = status_code(value)
        {
            self.status_code = Some(code);
            return;
        }
        if let Some(at) = ENDPOINT_KEYS.iter().position(|known| known.as_bytes() == key)
            && let Some(tagged) = self.tagged.get_mut(at)
        {
            *tagged = true;
        }
        write_attribute(&mut self.fields, 9, key, value);
    }

    /// Something in it could not be read: decoding will refuse it.
    pub(super) fn malformed(&mut self) {
        self.fields.raw(MALFORMED);
    }

    fn write_times(&self, out: &mut MessageWriter) {
        if self.start == 0 {
            return;
        }
        out.fixed64(7, self.start);
        if self.duration != 0 {
            out.fixed64(8, self.start.saturating_add(self.duration));
        }
    }

    /// OTLP keeps the first attributes, so these stand in front of the tags.
    fn write_endpoints(&self, out: &mut MessageWriter) {
        let texts = [self.local.address(), &[], &self.remote.service, self.remote.address(), &[]];
        let ports = [0, self.local.port, 0, 0, self.remote.port];
        for (at, key) in ENDPOINT_KEYS.into_iter().enumerate().filter(|(at, _)| self.tagged.get(*at) == Some(&false)) {
            let text = texts.get(at).copied().unwrap_or_default();
            let port = ports.get(at).copied().unwrap_or_default();
            if !text.is_empty() {
                write_attribute(out, 9, key.as_bytes(), text);
            } else if port != 0 {
                out.open(9);
                out.bytes(1, key.as_bytes());
                out.open(2);
                out.varint(3, u64::from(port));
                out.close();
                out.close();
            }
        }
    }

    /// The `error` tag stays an attribute unless it only carried the message of an OTLP status.
    fn write_status(&self, out: &mut MessageWriter) {
        let code = self.status_code.or(self.error.as_ref().map(|_| STATUS_ERROR));
        if let Some(error) = self.error.as_deref().filter(|_| self.status_code != Some(STATUS_ERROR)) {
            write_attribute(out, 9, ERROR_TAG, error);
        }
        let Some(code) = code else { return };
        out.open(15);
        if let Some(error) = self.error.as_deref().filter(|_| code == STATUS_ERROR) {
            out.bytes(2, error);
        }
        out.varint(3, code);
        out.close();
    }
}

/// The OTLP request while it grows. Neighbours of the same service share a resource.
#[derive(Debug)]
pub(super) struct Request {
    out: MessageWriter,
    service: Option<Vec<u8>>,
    pub(super) warnings: Warnings,
    pub(super) budget: ElementBudget,
}

impl Request {
    pub(super) fn new(budget: ElementBudget) -> Self {
        Self { out: MessageWriter::default(), service: None, warnings: Warnings::default(), budget }
    }

    pub(super) fn push(&mut self, mut draft: Draft) -> Result<(), OverBudget> {
        if self.service.as_ref() != Some(&draft.local.service) {
            self.budget.charge(COST_SERVICE)?;
            self.open_service(std::mem::take(&mut draft.local.service));
        }
        self.budget.charge(COST_TAG * ENDPOINT_KEYS.len() as u64)?;
        self.out.open(2);
        draft.write_times(&mut self.out);
        draft.write_endpoints(&mut self.out);
        draft.write_status(&mut self.out);
        self.out.raw(&draft.fields.finish());
        self.out.close();
        Ok(())
    }

    fn open_service(&mut self, service: Vec<u8>) {
        if self.service.is_some() {
            self.out.close();
            self.out.close();
        }
        self.out.open(1);
        self.out.open(1);
        if !service.is_empty() {
            write_attribute(&mut self.out, 1, b"service.name", &service);
        }
        self.out.close();
        self.out.open(2);
        self.service = Some(service);
    }

    /// The whole request and its warnings.
    pub(super) fn finish(self) -> (Vec<u8>, Warnings) {
        (self.out.finish(), self.warnings)
    }
}

fn nanos(micros: i128) -> u64 {
    let micros = if micros < 0 { 0 } else { u64::try_from(micros).unwrap_or(u64::MAX) };
    micros.saturating_mul(1_000)
}

fn status_code(text: &[u8]) -> Option<u64> {
    match text {
        b"UNSET" => Some(0),
        b"OK" => Some(1),
        b"ERROR" => Some(STATUS_ERROR),
        _ => None,
    }
}

/// A `KeyValue` with a string, as field `number`.
fn write_attribute(out: &mut MessageWriter, number: u32, key: &[u8], value: &[u8]) {
    out.open(number);
    out.bytes(1, key);
    out.open(2);
    out.bytes(1, value);
    out.close();
    out.close();
}
