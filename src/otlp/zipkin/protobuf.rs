//! `ListOfSpans` of zipkin.proto (zipkin-api 1.0), read field by field.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::budget::{ElementBudget, OverBudget};
use super::super::decode::guess;
use super::super::wire::{Fault, Reader, Wire, low_i32};
use super::super::{DecodeOptions, Translated, Undecodable};
use super::draft::{COST_ANNOTATION, COST_SPAN, COST_TAG, Draft, Endpoint, Request, SpanKind};
use crate::model::Text;

/// Why translating stopped.
#[derive(Debug)]
enum Stop {
    Fault(Fault),
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

/// Translates a Zipkin v2 `ListOfSpans`. Unknown fields are skipped. Cost: O(bytes).
///
/// # Errors
/// When the bytes are no message outside its spans; when the element budget is used up.
pub fn zipkin_protobuf_to_otlp(body: &[u8], options: &DecodeOptions) -> Result<Translated, Undecodable> {
    let mut request = Request::new(ElementBudget::new(body.len(), options.element_cost_max));
    match spans(body, &mut request) {
        Ok(()) => {
            let (protobuf, warnings) = request.finish();
            Ok(Translated { protobuf, warnings })
        }
        Err(Stop::Budget) => Err(request.budget.refusal()),
        Err(Stop::Fault(fault)) => Err(Undecodable::ZipkinProtobuf { fault, hint: guess(body) }),
    }
}

fn spans(body: &[u8], request: &mut Request) -> Result<(), Stop> {
    let mut reader = Reader::new(body);
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(piece)) => {
                request.budget.charge(COST_SPAN)?;
                let mut draft = Draft::default();
                match span(body, piece, &mut draft, request) {
                    Ok(()) => {}
                    Err(Stop::Fault(_)) => draft.malformed(),
                    Err(Stop::Budget) => return Err(Stop::Budget),
                }
                request.push(draft)?;
            }
            (1, _) => return Err(field.wrong_wire().into()),
            _ => {}
        }
    }
    Ok(())
}

fn span(body: &[u8], piece: Text, draft: &mut Draft, request: &mut Request) -> Result<(), Stop> {
    let mut reader = Reader::of(body, piece);
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(id)) => draft.trace_id(slice(body, id)),
            (2, Wire::Bytes(id)) => draft.parent_id(slice(body, id)),
            (3, Wire::Bytes(id)) => draft.span_id(slice(body, id)),
            (4, Wire::Varint(kind)) => draft.kind(span_kind(low_i32(kind))),
            (5, Wire::Bytes(name)) => draft.name(slice(body, name)),
            // Above 2^63 it is what a negative number looks like.
            (6, Wire::Fixed64(micros)) => draft.timestamp(i128::from(micros.cast_signed())),
            (7, Wire::Varint(micros)) => draft.duration(i128::from(micros.cast_signed())),
            (8, Wire::Bytes(piece)) => endpoint(body, piece, &mut draft.local)?,
            (9, Wire::Bytes(piece)) => endpoint(body, piece, &mut draft.remote)?,
            (10, Wire::Bytes(piece)) => {
                request.budget.charge(COST_ANNOTATION)?;
                annotation(body, piece, draft)?;
            }
            (11, Wire::Bytes(piece)) => {
                request.budget.charge(COST_TAG)?;
                tag(body, piece, draft)?;
            }
            (12, Wire::Varint(debug)) => draft.debug(debug != 0),
            // Shared: both halves have one id, and the kind tells them apart.
            (13, Wire::Varint(_)) => {}
            (1..=13, _) => return Err(field.wrong_wire().into()),
            _ => {}
        }
    }
    Ok(())
}

fn span_kind(kind: i32) -> SpanKind {
    match kind {
        1 => SpanKind::Client,
        2 => SpanKind::Server,
        3 => SpanKind::Producer,
        4 => SpanKind::Consumer,
        _ => SpanKind::Unspecified,
    }
}

fn endpoint(body: &[u8], piece: Text, endpoint: &mut Endpoint) -> Result<(), Fault> {
    let mut reader = Reader::of(body, piece);
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(name)) => endpoint.service = slice(body, name).to_vec(),
            // Addresses of another length are unknown.
            (2, Wire::Bytes(ip)) => {
                let ip = <[u8; 4]>::try_from(slice(body, ip));
                endpoint.ipv4 = ip.map_or_else(|_| Vec::new(), |ip| Ipv4Addr::from(ip).to_string().into_bytes());
            }
            (3, Wire::Bytes(ip)) => {
                let ip = <[u8; 16]>::try_from(slice(body, ip));
                endpoint.ipv6 = ip.map_or_else(|_| Vec::new(), |ip| Ipv6Addr::from(ip).to_string().into_bytes());
            }
            (4, Wire::Varint(port)) => endpoint.port = u16::try_from(low_i32(port)).unwrap_or(0),
            (1..=4, _) => return Err(field.wrong_wire()),
            _ => {}
        }
    }
    Ok(())
}

fn annotation(body: &[u8], piece: Text, draft: &mut Draft) -> Result<(), Fault> {
    let (mut micros, mut value) = (0, Text::default());
    let mut reader = Reader::of(body, piece);
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Fixed64(timestamp)) => micros = i128::from(timestamp.cast_signed()),
            (2, Wire::Bytes(text)) => value = text,
            (1 | 2, _) => return Err(field.wrong_wire()),
            _ => {}
        }
    }
    draft.annotation(micros, slice(body, value));
    Ok(())
}

fn tag(body: &[u8], piece: Text, draft: &mut Draft) -> Result<(), Fault> {
    let (mut key, mut value) = (Text::default(), Text::default());
    let mut reader = Reader::of(body, piece);
    while let Some(field) = reader.field()? {
        match (field.number, field.wire) {
            (1, Wire::Bytes(text)) => key = text,
            (2, Wire::Bytes(text)) => value = text,
            (1 | 2, _) => return Err(field.wrong_wire()),
            _ => {}
        }
    }
    draft.tag(slice(body, key), slice(body, value));
    Ok(())
}

fn slice(body: &[u8], text: Text) -> &[u8] {
    body.get(text.start as usize..text.start.saturating_add(text.len) as usize).unwrap_or_default()
}
