//! The skip index while a block is written.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::index::AsIs;
use super::survey::{Located, Survey};
use crate::block::codec::{Packer, put_ints, put_varint};
use crate::block::columns::{GROUP_ROWS, Owner};
use crate::block::skip::{
    BITS_PER_TEXT, LINE_BYTES, NO_LATENCY, NO_SPAN, key_hash, line_of, n_zones, nested_hash, step_of, text_hash,
};
use crate::model::{Rows, SpanBatch, Value};

/// Section 6.
pub(super) fn skip_index(spans: &[Located<'_>], survey: &Survey<'_>, packer: &mut Packer) -> Vec<u8> {
    let mut zones = Vec::new();
    for service in &survey.summary.services {
        let of_service = survey.series.iter();
        let of_service = of_service.filter(|key| key.service == service.service && key.namespace == service.namespace);
        put_varint(&mut zones, of_service.count() as u64);
    }
    let n_series = survey.series.len();
    let mut steps = vec![NO_SPAN; n_zones(spans.len().div_ceil(GROUP_ROWS), n_series)];
    for (row, ((_, span), series)) in spans.iter().zip(&survey.row_series).enumerate() {
        let step = span.latency().map_or(NO_LATENCY, step_of);
        if let Some(zone) = steps.get_mut(row / GROUP_ROWS * n_series + *series as usize) {
            *zone = step.max(*zone);
        }
    }
    if !steps.is_empty() {
        put_ints(&mut zones, &steps, packer);
    }
    let mut out = u32::try_from(zones.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.append(&mut zones);
    put_lines(&mut out, &Texts::of(spans, survey).hashes);
    out
}

fn put_lines(out: &mut Vec<u8>, hashes: &Hashes) {
    if TEXTS_MAX <= hashes.len() {
        // Any text seems to be there.
        out.extend_from_slice(&[u8::MAX; LINE_BYTES]);
        return;
    }
    let n_lines = (hashes.len() * BITS_PER_TEXT).div_ceil(LINE_BYTES * 8);
    let start = out.len();
    out.resize(start + n_lines * LINE_BYTES, 0);
    for hash in hashes {
        let (line, bits) = line_of(*hash, n_lines);
        for (byte, mask) in bits {
            if let Some(byte) = out.get_mut(start + line * LINE_BYTES + byte) {
                *byte |= mask;
            }
        }
    }
}

type Hashes = HashSet<u64, BuildHasherDefault<AsIs>>;

/// Hashes that were met lately, by their lowest bits: most texts are few that come again and again, and looking there costs
/// less than a look into the set of all.
const RECENT: usize = 4_096;
/// More different texts than these, four for each span of a full block, are not told apart: who sends attributes without end
/// must not take memory without end.
const TEXTS_MAX: usize = 1 << 18;

/// The texts of all attributes.
struct Texts {
    hashes: Hashes,
    recent: Vec<u64>,
    /// The hash of its key, by number of the attribute.
    of_attributes: Vec<u64>,
}

impl Texts {
    fn of(spans: &[Located<'_>], survey: &Survey<'_>) -> Self {
        let key_hash = |(owner, key): (Owner, &[u8])| key_hash(owner, key);
        let mut texts = Self {
            hashes: Hashes::default(),
            recent: vec![0; RECENT],
            of_attributes: survey.shapes.keys().map(key_hash).collect(),
        };
        let (mut events, mut links) = (survey.event_shapes.iter(), survey.link_shapes.iter());
        for ((batch, span), shape) in spans.iter().zip(&survey.row_shapes) {
            texts.add(batch, span.attributes, survey.shapes.members(*shape));
            for (event, shape) in batch.events(span.events).iter().zip(&mut events) {
                texts.add(batch, event.attributes, survey.shapes.members(*shape));
            }
            for (link, shape) in batch.links(span.links).iter().zip(&mut links) {
                texts.add(batch, link.attributes, survey.shapes.members(*shape));
            }
        }
        texts
    }

    /// `members` are the numbers of these attributes.
    fn add(&mut self, batch: &SpanBatch, attributes: Rows, members: &[u32]) {
        for (attribute, member) in batch.attributes(attributes).iter().zip(members) {
            let Some(key_hash) = self.of_attributes.get(*member as usize) else { continue };
            let hash = match attribute.value {
                Value::String(text) => text_hash(*key_hash, batch.text(text)),
                Value::Nested(_) => nested_hash(*key_hash),
                Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) => continue,
            };
            let place = usize::try_from(hash).unwrap_or(0) % RECENT;
            if self.recent.get(place) != Some(&hash) && self.hashes.len() < TEXTS_MAX {
                let _known = self.hashes.insert(hash);
                if let Some(recent) = self.recent.get_mut(place) {
                    *recent = hash;
                }
            }
        }
    }
}
