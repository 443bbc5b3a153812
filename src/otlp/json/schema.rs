//! The messages of OTLP traces as JSON names them: key, field number, kind of value.

/// A message type.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: &'static [JsonField],
    /// Nominal bytes in memory.
    pub(super) cost: u64,
    /// Faults inside cost the span only.
    pub(super) is_span: bool,
}

/// A field with its lowerCamelCase key.
#[derive(Debug)]
pub(super) struct JsonField {
    pub(super) key: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
}

/// How a value is written in JSON and on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Hex here, unlike in ProtoJSON.
    Id,
    Text,
    Base64,
    Bool,
    Int64,
    Int32,
    Uint32,
    Fixed64,
    Fixed32,
    Double,
    /// A number, or leniently one of these names.
    Enum(&'static [&'static str]),
    Message(&'static Message),
    Messages(&'static Message),
    Texts,
}

/// Names of `Span.SpanKind`, by number.
pub(crate) const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// Names of `Status.StatusCode`, by number.
pub(crate) const STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

const fn field(key: &'static str, number: u32, kind: Kind) -> JsonField {
    JsonField { key, number, kind }
}

const fn message(cost: u64, fields: &'static [JsonField]) -> Message {
    Message { fields, cost, is_span: false }
}

pub(super) static REQUEST: Message = message(0, &[field("resourceSpans", 1, Kind::Messages(&RESOURCE_SPANS))]);

static RESOURCE_SPANS: Message = message(
    80,
    &[
        field("resource", 1, Kind::Message(&RESOURCE)),
        field("scopeSpans", 2, Kind::Messages(&SCOPE_SPANS)),
        field("schemaUrl", 3, Kind::Text),
    ],
);

static RESOURCE: Message = message(
    32,
    &[
        field("attributes", 1, Kind::Messages(&KEY_VALUE)),
        field("droppedAttributesCount", 2, Kind::Uint32),
        field("entityRefs", 3, Kind::Messages(&ENTITY_REF)),
    ],
);

static ENTITY_REF: Message = message(
    32,
    &[
        field("schemaUrl", 1, Kind::Text),
        field("type", 2, Kind::Text),
        field("idKeys", 3, Kind::Texts),
        field("descriptionKeys", 4, Kind::Texts),
    ],
);

static SCOPE_SPANS: Message = message(
    128,
    &[
        field("scope", 1, Kind::Message(&SCOPE)),
        field("spans", 2, Kind::Messages(&SPAN)),
        field("schemaUrl", 3, Kind::Text),
    ],
);

static SCOPE: Message = message(
    32,
    &[
        field("name", 1, Kind::Text),
        field("version", 2, Kind::Text),
        field("attributes", 3, Kind::Messages(&KEY_VALUE)),
        field("droppedAttributesCount", 4, Kind::Uint32),
    ],
);

static SPAN: Message = Message {
    cost: 264,
    is_span: true,
    fields: &[
        field("traceId", 1, Kind::Id),
        field("spanId", 2, Kind::Id),
        field("traceState", 3, Kind::Text),
        field("parentSpanId", 4, Kind::Id),
        field("name", 5, Kind::Text),
        field("kind", 6, Kind::Enum(&SPAN_KINDS)),
        field("startTimeUnixNano", 7, Kind::Fixed64),
        field("endTimeUnixNano", 8, Kind::Fixed64),
        field("attributes", 9, Kind::Messages(&KEY_VALUE)),
        field("droppedAttributesCount", 10, Kind::Uint32),
        field("events", 11, Kind::Messages(&EVENT)),
        field("droppedEventsCount", 12, Kind::Uint32),
        field("links", 13, Kind::Messages(&LINK)),
        field("droppedLinksCount", 14, Kind::Uint32),
        field("status", 15, Kind::Message(&STATUS)),
        field("flags", 16, Kind::Fixed32),
    ],
};

static EVENT: Message = message(
    64,
    &[
        field("timeUnixNano", 1, Kind::Fixed64),
        field("name", 2, Kind::Text),
        field("attributes", 3, Kind::Messages(&KEY_VALUE)),
        field("droppedAttributesCount", 4, Kind::Uint32),
    ],
);

static LINK: Message = message(
    104,
    &[
        field("traceId", 1, Kind::Id),
        field("spanId", 2, Kind::Id),
        field("traceState", 3, Kind::Text),
        field("attributes", 4, Kind::Messages(&KEY_VALUE)),
        field("droppedAttributesCount", 5, Kind::Uint32),
        field("flags", 6, Kind::Fixed32),
    ],
);

static STATUS: Message = message(32, &[field("message", 2, Kind::Text), field("code", 3, Kind::Enum(&STATUS_CODES))]);

static KEY_VALUE: Message = message(
    64,
    &[field("key", 1, Kind::Text), field("value", 2, Kind::Message(&ANY_VALUE)), field("keyStrindex", 3, Kind::Int32)],
);

static ANY_VALUE: Message = message(
    32,
    &[
        field("stringValue", 1, Kind::Text),
        field("boolValue", 2, Kind::Bool),
        field("intValue", 3, Kind::Int64),
        field("doubleValue", 4, Kind::Double),
        field("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        field("kvlistValue", 6, Kind::Message(&KVLIST_VALUE)),
        field("bytesValue", 7, Kind::Base64),
        field("stringValueStrindex", 8, Kind::Int32),
    ],
);

static ARRAY_VALUE: Message = message(32, &[field("values", 1, Kind::Messages(&ANY_VALUE))]);

static KVLIST_VALUE: Message = message(32, &[field("values", 1, Kind::Messages(&KEY_VALUE))]);

impl Message {
    /// Whether `key` is a known key in snake_case, as a wrong JSON library writes it.
    pub(super) fn knows_in_snake_case(&self, key: &str) -> bool {
        key.contains('_') && self.fields.iter().any(|field| is_snake_case_of(key, field.key))
    }
}

fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut snake = snake.bytes();
    for byte in camel.bytes() {
        if byte.is_ascii_uppercase() && snake.next() != Some(b'_') {
            return false;
        }
        if snake.next() != Some(byte.to_ascii_lowercase()) {
            return false;
        }
    }
    snake.next().is_none()
}
