//! A JSON list of Zipkin v2 spans. Its messages do not nest, so each is a loop of its own; what is unknown is skipped.

use super::super::binary_text::read_hex;
use super::super::budget::{ElementBudget, OverBudget};
use super::super::json::number::integer;
use super::super::json::reader::{JsonFault, JsonReader, Next};
use super::super::json::{END_OF_TEXT, INVALID_ID, guess, text_of, undecodable};
use super::super::outcome::Warning;
use super::super::{DecodeOptions, Translated, Undecodable};
use super::draft::{COST_ANNOTATION, COST_SPAN, COST_TAG, Draft, Endpoint, Request, SpanKind};

/// Objects and arrays around a span; around what a span holds; and around what that holds.
const DEPTH_OF_SPAN: usize = 1;
const DEPTH_IN_SPAN: usize = 2;
const DEPTH_IN_MEMBER: usize = 3;

const LIST: &str = "a list of Zipkin v2 spans";

/// Translates a JSON list of Zipkin v2 spans. An empty body is an empty list. Unknown keys are skipped. Cost: O(bytes).
///
/// # Errors
/// When the text is no JSON, no list, of Zipkin v1, or nested beyond `limits::JSON_DEPTH_MAX`; when the element budget
/// is used up.
pub fn zipkin_json_to_otlp(body: &[u8], options: &DecodeOptions) -> Result<Translated, Undecodable> {
    if body.is_empty() {
        return Ok(Translated::default());
    }
    let reader = JsonReader::new(text_of(body)?);
    let request = Request::new(ElementBudget::new(body.len(), options.element_cost_max));
    let mut converter = Converter { reader, request, key: String::new(), bytes: Vec::new(), is_malformed: false };
    match converter.spans() {
        Ok(()) => Ok(converter.finish()),
        Err(Stop::Budget) => Err(converter.request.budget.refusal()),
        Err(Stop::Fault(fault)) => Err(undecodable(body, fault, guess(body))),
        Err(Stop::V1 { at }) => {
            let fault = JsonFault { at, expected: LIST };
            Err(undecodable(body, fault, " (v1 is not supported)"))
        }
    }
}

/// Why translating stopped.
#[derive(Debug)]
enum Stop {
    Fault(JsonFault),
    /// A key that only Zipkin v1 has.
    V1 {
        at: usize,
    },
    Budget,
}

impl From<JsonFault> for Stop {
    fn from(fault: JsonFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<OverBudget> for Stop {
    fn from(_: OverBudget) -> Self {
        Self::Budget
    }
}

/// The keys of a span.
#[derive(Clone, Copy, Debug)]
enum Key {
    TraceId,
    Id,
    ParentId,
    Name,
    Kind,
    Timestamp,
    Duration,
    LocalEndpoint,
    RemoteEndpoint,
    Annotations,
    Tags,
    Debug,
    V1,
    Unknown,
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "traceId" => Self::TraceId,
            "id" => Self::Id,
            "parentId" => Self::ParentId,
            "name" => Self::Name,
            "kind" => Self::Kind,
            "timestamp" => Self::Timestamp,
            "duration" => Self::Duration,
            "localEndpoint" => Self::LocalEndpoint,
            "remoteEndpoint" => Self::RemoteEndpoint,
            "annotations" => Self::Annotations,
            "tags" => Self::Tags,
            "debug" => Self::Debug,
            v1 if v1.ends_with("Annotations") => Self::V1,
            // Also `shared`: both halves have one id, and the kind tells them apart.
            _ => Self::Unknown,
        }
    }
}

/// The keys of an endpoint.
#[derive(Clone, Copy, Debug)]
enum EndpointKey {
    ServiceName,
    Ipv4,
    Ipv6,
    Port,
    Unknown,
}

impl EndpointKey {
    fn of(key: &str) -> Self {
        match key {
            "serviceName" => Self::ServiceName,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "port" => Self::Port,
            _ => Self::Unknown,
        }
    }
}

struct Converter<'a> {
    reader: JsonReader<'a>,
    request: Request,
    /// The key of a tag, while its value is read.
    key: String,
    /// An id, or the value of an annotation.
    bytes: Vec<u8>,
    /// The span that is read has a value of a wrong type.
    is_malformed: bool,
}

impl Converter<'_> {
    fn spans(&mut self) -> Result<(), Stop> {
        let fault = JsonFault { at: self.reader.at(), expected: LIST };
        if self.reader.next().ok() != Some(Next::Array) {
            return Err(fault.into());
        }
        self.reader.enter();
        let mut first = true;
        while self.reader.element(&mut first)? {
            self.request.budget.charge(COST_SPAN)?;
            let mut draft = Draft::default();
            self.is_malformed = false;
            if self.reader.next()? == Next::Object {
                self.span(&mut draft)?;
            } else {
                self.wrong_type(DEPTH_OF_SPAN)?;
            }
            if self.is_malformed {
                draft.malformed();
            }
            self.request.push(draft)?;
        }
        if self.reader.is_at_end() {
            return Ok(());
        }
        Err(JsonFault { at: self.reader.at(), expected: END_OF_TEXT }.into())
    }

    fn finish(mut self) -> Translated {
        self.request.warnings.add(Warning::InvalidUtf8, self.reader.n_replaced);
        let (protobuf, warnings) = self.request.finish();
        Translated { protobuf, warnings }
    }

    /// A value that does not fit costs its span.
    fn wrong_type(&mut self, depth: usize) -> Result<(), Stop> {
        self.is_malformed = true;
        Ok(self.reader.skip(depth)?)
    }

    fn span(&mut self, draft: &mut Draft) -> Result<(), Stop> {
        self.reader.enter();
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            let key = Key::of(key);
            let next = self.reader.next()?;
            match (key, next) {
                (Key::V1, _) => return Err(Stop::V1 { at: self.reader.at() }),
                (Key::Unknown, _) => self.reader.skip(DEPTH_IN_SPAN)?,
                (_, Next::Null) => self.reader.null()?,
                (Key::TraceId | Key::Id | Key::ParentId, Next::String) => self.id(key, draft)?,
                (Key::Name, Next::String) => draft.name(self.reader.string()?.as_bytes()),
                (Key::Kind, Next::String) => draft.kind(span_kind(self.reader.string()?)),
                (Key::Timestamp, Next::Number | Next::String) => draft.timestamp(self.whole(next)?),
                (Key::Duration, Next::Number | Next::String) => draft.duration(self.whole(next)?),
                (Key::LocalEndpoint, Next::Object) => self.endpoint(&mut draft.local)?,
                (Key::RemoteEndpoint, Next::Object) => self.endpoint(&mut draft.remote)?,
                (Key::Annotations, Next::Array) => self.annotations(draft)?,
                (Key::Tags, Next::Object) => self.tags(draft)?,
                (Key::Debug, Next::Bool) => draft.debug(self.reader.bool()?),
                _ => self.wrong_type(DEPTH_IN_SPAN)?,
            }
        }
        Ok(())
    }

    /// Hex of any case; decoding judges the length, and everything else has a length that no id has.
    fn id(&mut self, key: Key, draft: &mut Draft) -> Result<(), Stop> {
        let text = self.reader.string()?;
        let id = if read_hex(text, &mut self.bytes) { self.bytes.as_slice() } else { INVALID_ID };
        match key {
            Key::TraceId => draft.trace_id(id),
            Key::Id => draft.span_id(id),
            _ => draft.parent_id(id),
        }
        Ok(())
    }

    /// A whole number, as number or string; an empty string is 0.
    fn whole(&mut self, next: Next) -> Result<i128, Stop> {
        let text = if next == Next::String { self.reader.string()? } else { self.reader.number()? };
        let value = if text.is_empty() { Some(0) } else { integer(text) };
        self.is_malformed |= value.is_none();
        Ok(value.unwrap_or(0))
    }

    fn endpoint(&mut self, endpoint: &mut Endpoint) -> Result<(), Stop> {
        self.reader.enter();
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            let key = EndpointKey::of(key);
            let next = self.reader.next()?;
            match (key, next) {
                (EndpointKey::Unknown, _) => self.reader.skip(DEPTH_IN_MEMBER)?,
                (_, Next::Null) => self.reader.null()?,
                (EndpointKey::ServiceName, Next::String) => endpoint.service = self.reader.string()?.into(),
                (EndpointKey::Ipv4, Next::String) => endpoint.ipv4 = self.reader.string()?.into(),
                (EndpointKey::Ipv6, Next::String) => endpoint.ipv6 = self.reader.string()?.into(),
                (EndpointKey::Port, Next::Number | Next::String) => {
                    // Ports that are none are unknown.
                    endpoint.port = u16::try_from(self.whole(next)?).unwrap_or(0);
                }
                _ => self.wrong_type(DEPTH_IN_MEMBER)?,
            }
        }
        Ok(())
    }

    fn annotations(&mut self, draft: &mut Draft) -> Result<(), Stop> {
        self.reader.enter();
        let mut first = true;
        while self.reader.element(&mut first)? {
            self.request.budget.charge(COST_ANNOTATION)?;
            if self.reader.next()? == Next::Object {
                self.annotation(draft)?;
            } else {
                self.wrong_type(DEPTH_IN_MEMBER)?;
            }
        }
        Ok(())
    }

    fn annotation(&mut self, draft: &mut Draft) -> Result<(), Stop> {
        self.reader.enter();
        self.bytes.clear();
        let (mut micros, mut first) = (0, true);
        while let Some(key) = self.reader.key(&mut first)? {
            let (is_time, is_value) = (key == "timestamp", key == "value");
            match self.reader.next()? {
                Next::Null => self.reader.null()?,
                next @ (Next::Number | Next::String) if is_time => micros = self.whole(next)?,
                Next::String if is_value => self.bytes = self.reader.string()?.into(),
                _ if is_time || is_value => self.wrong_type(DEPTH_IN_MEMBER + 1)?,
                _ => self.reader.skip(DEPTH_IN_MEMBER + 1)?,
            }
        }
        draft.annotation(micros, &self.bytes);
        Ok(())
    }

    /// Values that are no strings become their JSON text.
    fn tags(&mut self, draft: &mut Draft) -> Result<(), Stop> {
        self.reader.enter();
        let mut first = true;
        while let Some(key) = self.reader.key(&mut first)? {
            self.key.clear();
            self.key.push_str(key);
            self.request.budget.charge(COST_TAG)?;
            if self.reader.next()? == Next::String {
                draft.tag(self.key.as_bytes(), self.reader.string()?.as_bytes());
                continue;
            }
            let from = self.reader.at();
            self.reader.skip(DEPTH_IN_MEMBER)?;
            draft.tag(self.key.as_bytes(), self.reader.since(from).as_bytes());
            self.request.warnings.add(Warning::StringifiedTag, 1);
        }
        Ok(())
    }
}

fn span_kind(name: &str) -> SpanKind {
    match name {
        "CLIENT" => SpanKind::Client,
        "SERVER" => SpanKind::Server,
        "PRODUCER" => SpanKind::Producer,
        "CONSUMER" => SpanKind::Consumer,
        _ => SpanKind::Unspecified,
    }
}
