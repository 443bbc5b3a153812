//! Zipkin v2 spans in, JSON and protobuf: translated to OTLP protobuf, so that there is one mapping from the wire to the
//! model only.
//!
//! ```text
//! [{"traceId":"5af7183fb1d4cf5f","id":"352bff9a74ca9ad2","kind":"SERVER","name":"get /","timestamp":1502787600000000,
//!   "duration":150000,"localEndpoint":{"serviceName":"shop","ipv4":"10.0.0.7"},"tags":{"http.method":"GET"}}]
//! ```
//!
//! A bad value inside a span makes that span invalid in OTLP, where decoding refuses it alone. Zipkin v1 is not read.

mod draft;
mod json;
mod protobuf;
#[cfg(test)]
mod tests;

pub use json::zipkin_json_to_otlp;
pub use protobuf::zipkin_protobuf_to_otlp;
