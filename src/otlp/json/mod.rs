//! OTLP/JSON in: translated to OTLP protobuf, so that there is one mapping from the wire to the model only.
//!
//! A table of messages (`schema`) drives a loop with an explicit stack. A bad value inside a span makes that span
//! malformed on the wire, where decoding refuses it alone; anywhere else it costs the request.

pub(super) mod number;
pub(super) mod reader;
pub(super) mod schema;
#[cfg(test)]
mod tests;

use self::reader::{JsonFault, JsonReader, Next};
use self::schema::{JsonField, Kind, Message, REQUEST};
use super::binary_text::{read_base64, read_hex};
use super::budget::{ElementBudget, OverBudget};
use super::outcome::{Undecodable, Warning, Warnings};
use super::writer::MessageWriter;
use super::{DecodeOptions, MALFORMED, Translated};
use crate::limits::JSON_DEPTH_MAX;

/// An id of a length that no id has.
pub(super) const INVALID_ID: &[u8] = &[0];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Translates an OTLP/JSON `ExportTraceServiceRequest`. An empty body is an empty request.
///
/// Unknown keys are skipped. Cost: O(bytes).
///
/// # Errors
/// When the text is no JSON, no object, or nested beyond `limits::JSON_DEPTH_MAX`; when a value outside every span has
/// a wrong type; when the element budget is used up.
pub fn json_to_protobuf(body: &[u8], options: &DecodeOptions) -> Result<Translated, Undecodable> {
    if body.is_empty() {
        return Ok(Translated::default());
    }
    let text = text_of(body)?;
    let mut converter = Converter {
        reader: JsonReader::new(text),
        out: MessageWriter::default(),
        warnings: Warnings::default(),
        stack: Vec::new(),
        n_spans: 0,
        n_spans_open: 0,
        binary: Vec::new(),
        budget: ElementBudget::new(body.len(), options.element_cost_max),
    };
    match converter.request() {
        Ok(()) => Ok(converter.finish()),
        Err(Stop::Budget) => Err(converter.budget.refusal()),
        Err(Stop::Fault(fault)) => {
            let another = fault.expected == END_OF_TEXT && converter.reader.is_at_object();
            let hint = if another { " (several documents: send one request for each)" } else { guess(body) };
            Err(undecodable(body, fault, hint))
        }
    }
}

/// Expected behind the request.
pub(super) const END_OF_TEXT: &str = "the end of the text";

/// The body as text, without its byte order mark.
pub(super) fn text_of(body: &[u8]) -> Result<&str, Undecodable> {
    let without_bom = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    std::str::from_utf8(without_bom).map_err(|error| {
        let fault = JsonFault { at: error.valid_up_to(), expected: "UTF-8" };
        undecodable(body, fault, guess(body))
    })
}

/// The fault with its place in the whole body.
pub(super) fn undecodable(body: &[u8], fault: JsonFault, hint: &'static str) -> Undecodable {
    let n_bom = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let byte = fault.at + n_bom;
    let before = body.get(..byte).unwrap_or(body);
    let line = before.split(|byte| *byte == b'\n').count();
    Undecodable::Json { line, byte, expected: fault.expected, hint }
}

/// What was sent instead of JSON, as far as the first bytes tell.
pub(super) fn guess(body: &[u8]) -> &'static str {
    let start = body.get(..16).unwrap_or(body);
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        " (this looks like UTF-16: send UTF-8)"
    } else if start.iter().any(|byte| *byte < b'\t') {
        " (this looks like protobuf: declare Content-Type application/x-protobuf)"
    } else {
        ""
    }
}

/// Why translating stopped.
#[derive(Debug)]
enum Stop {
    Fault(JsonFault),
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

/// An object or array that is open.
#[derive(Debug)]
struct Frame {
    inside: Inside,
    /// No member or element was read yet.
    first: bool,
}

#[derive(Clone, Copy, Debug)]
enum Inside {
    Object(&'static Message),
    Messages { number: u32, message: &'static Message },
    Texts { number: u32 },
}

struct Converter<'a> {
    reader: JsonReader<'a>,
    out: MessageWriter,
    warnings: Warnings,
    stack: Vec<Frame>,
    n_spans: u64,
    /// 1 inside a span, else 0.
    n_spans_open: u32,
    /// Bytes of an id or a base64 value.
    binary: Vec<u8>,
    budget: ElementBudget,
}

impl Converter<'_> {
    fn request(&mut self) -> Result<(), Stop> {
        const REQUEST_OBJECT: &str = "an object with resourceSpans";
        let fault = JsonFault { at: self.reader.at(), expected: REQUEST_OBJECT };
        if self.reader.next().ok() != Some(Next::Object) {
            return Err(fault.into());
        }
        self.push(Inside::Object(&REQUEST))?;
        while let Some(frame) = self.stack.last_mut() {
            match frame.inside {
                Inside::Object(message) => {
                    let Some(key) = self.reader.key(&mut frame.first)? else {
                        self.leave_message(message);
                        continue;
                    };
                    if let Some(field) = message.fields.iter().find(|field| field.key == key) {
                        self.member(field)?;
                        continue;
                    }
                    if message.knows_in_snake_case(key) {
                        self.warnings.unknown_key(key);
                    }
                    self.reader.skip(self.stack.len())?;
                }
                Inside::Messages { number, message } => {
                    if self.reader.element(&mut frame.first)? {
                        self.element(number, message)?;
                    } else {
                        let _left = self.stack.pop();
                    }
                }
                Inside::Texts { number } => {
                    if self.reader.element(&mut frame.first)? {
                        self.text(number)?;
                    } else {
                        let _left = self.stack.pop();
                    }
                }
            }
        }
        if self.reader.is_at_end() {
            return Ok(());
        }
        Err(JsonFault { at: self.reader.at(), expected: END_OF_TEXT }.into())
    }

    fn finish(mut self) -> Translated {
        self.warnings.add(Warning::InvalidUtf8, self.reader.n_replaced);
        if self.n_spans == 0 && 0 < self.warnings.count(Warning::UnknownKeys) {
            self.warnings.add(Warning::NoSpans, 1);
        }
        Translated { protobuf: self.out.finish(), warnings: self.warnings }
    }

    fn push(&mut self, inside: Inside) -> Result<(), Stop> {
        if JSON_DEPTH_MAX <= self.stack.len() {
            let expected = "at most 10000 objects and arrays inside each other";
            return Err(JsonFault { at: self.reader.at(), expected }.into());
        }
        self.reader.enter();
        self.stack.push(Frame { inside, first: true });
        Ok(())
    }

    fn enter_message(&mut self, number: u32, message: &'static Message) -> Result<(), Stop> {
        self.budget.charge(message.cost)?;
        self.push(Inside::Object(message))?;
        self.out.open(number);
        if message.is_span {
            self.n_spans += 1;
            self.n_spans_open += 1;
        }
        Ok(())
    }

    fn leave_message(&mut self, message: &'static Message) {
        let _left = self.stack.pop();
        self.out.close();
        if message.is_span {
            self.n_spans_open -= 1;
        }
    }

    /// One value of a repeated message.
    fn element(&mut self, number: u32, message: &'static Message) -> Result<(), Stop> {
        match self.reader.next()? {
            Next::Object => self.enter_message(number, message),
            Next::Null => {
                self.reader.null()?;
                self.budget.charge(message.cost)?;
                self.out.bytes(number, &[]);
                Ok(())
            }
            Next::Array | Next::String | Next::Number | Next::Bool => {
                let at = self.reader.at();
                self.reader.skip(self.stack.len())?;
                if message.is_span {
                    self.n_spans += 1;
                    self.out.bytes(number, MALFORMED);
                    return Ok(());
                }
                self.bad_value(at, "an object")
            }
        }
    }

    /// One value of a repeated string.
    fn text(&mut self, number: u32) -> Result<(), Stop> {
        let at = self.reader.at();
        if self.reader.next()? == Next::String {
            let text = self.reader.string()?;
            self.out.bytes(number, text.as_bytes());
            return Ok(());
        }
        self.reader.skip(self.stack.len())?;
        self.bad_value(at, "a string")
    }

    /// The value of a known key.
    fn member(&mut self, field: &'static JsonField) -> Result<(), Stop> {
        let next = self.reader.next()?;
        let at = self.reader.at();
        let expected = match (field.kind, next) {
            (_, Next::Null) => return Ok(self.reader.null()?),
            (Kind::Message(message), Next::Object) => return self.enter_message(field.number, message),
            (Kind::Messages(message), Next::Array) => {
                return self.push(Inside::Messages { number: field.number, message });
            }
            (Kind::Texts, Next::Array) => return self.push(Inside::Texts { number: field.number }),
            (Kind::Id | Kind::Text | Kind::Base64, Next::String) => return self.string(field),
            (Kind::Bool, Next::Bool) => {
                let value = self.reader.bool()?;
                self.out.varint(field.number, u64::from(value));
                return Ok(());
            }
            (Kind::Enum(names), Next::String) => return self.enum_name(field.number, names),
            (
                Kind::Enum(_) | Kind::Int64 | Kind::Int32 | Kind::Uint32 | Kind::Fixed64 | Kind::Fixed32 | Kind::Double,
                Next::Number | Next::String,
            ) => return self.number(field, next),
            (Kind::Message(_), _) => "an object",
            (Kind::Messages(_) | Kind::Texts, _) => "an array",
            (Kind::Id | Kind::Text | Kind::Base64, _) => "a string",
            (Kind::Bool, _) => "true or false",
            (_, Next::Object | Next::Array | Next::Bool) => "a number",
        };
        self.reader.skip(self.stack.len())?;
        self.bad_value(at, expected)
    }

    fn string(&mut self, field: &JsonField) -> Result<(), Stop> {
        let text = self.reader.string()?;
        match field.kind {
            Kind::Id => {
                let id = if read_hex(text, &mut self.binary) { self.binary.as_slice() } else { INVALID_ID };
                self.out.bytes(field.number, id);
            }
            Kind::Base64 => {
                if !read_base64(text, &mut self.binary) {
                    self.binary.clear();
                    self.warnings.add(Warning::BadBase64, 1);
                }
                self.out.bytes(field.number, &self.binary);
            }
            _ => self.out.bytes(field.number, text.as_bytes()),
        }
        Ok(())
    }

    fn enum_name(&mut self, number: u32, names: &[&str]) -> Result<(), Stop> {
        let name = self.reader.string()?;
        let value = names.iter().position(|known| *known == name).unwrap_or_default();
        self.out.varint(number, value as u64);
        self.warnings.add(Warning::EnumName, 1);
        Ok(())
    }

    fn number(&mut self, field: &JsonField, next: Next) -> Result<(), Stop> {
        let at = self.reader.at();
        let text = if next == Next::String { self.reader.string()? } else { self.reader.number()? };
        let out = &mut self.out;
        let written = match field.kind {
            Kind::Double => number::double(text).map(|value| out.fixed64(field.number, value.to_bits())),
            Kind::Fixed64 => whole(text).map(|value: u64| out.fixed64(field.number, value)),
            Kind::Fixed32 => whole(text).map(|value: u32| out.fixed32(field.number, value)),
            Kind::Uint32 => whole(text).map(|value: u32| out.varint(field.number, u64::from(value))),
            Kind::Int64 => whole(text).map(|value: i64| out.varint(field.number, value.cast_unsigned())),
            Kind::Int32 | Kind::Enum(_) => {
                whole(text).map(|value: i32| out.varint(field.number, i64::from(value).cast_unsigned()))
            }
            Kind::Id | Kind::Text | Kind::Base64 | Kind::Bool | Kind::Message(_) | Kind::Messages(_) | Kind::Texts => {
                None
            }
        };
        if written.is_some() {
            return Ok(());
        }
        self.bad_value(at, "a number in the range of its field")
    }

    /// A value that was read and does not fit: costs the span around it, or else the request.
    fn bad_value(&mut self, at: usize, expected: &'static str) -> Result<(), Stop> {
        if self.n_spans_open == 0 {
            return Err(JsonFault { at, expected }.into());
        }
        self.out.raw(MALFORMED);
        Ok(())
    }
}

fn whole<T: TryFrom<i128>>(text: &str) -> Option<T> {
    number::integer(text)?.try_into().ok()
}
