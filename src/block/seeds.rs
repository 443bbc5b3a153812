//! Blocks to begin fuzzing with: `UPDATE_SEEDS=1 cargo test seeds` writes them.

use std::path::Path;
use std::sync::Arc;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::codec::Packer;
use super::encode::encode_with;
use super::samples::{any_batch, shop};
use super::*;
use crate::model::{SpanBatch, UnixNanos};

/// As `fuzz/src/block.rs` reads them: each section behind these bytes and its number.
const SECTION: &[u8; 4] = b"\xfa\xce\xb1\x0c";

fn sections(batches: Vec<SpanBatch>, packer: Packer) -> Vec<(SectionId, Vec<u8>)> {
    let batches: Vec<Arc<SpanBatch>> = batches.into_iter().map(Arc::new).collect();
    encode_with(&batches, &order(&batches).rows, UnixNanos(77), packer).unwrap().sections
}

#[test]
fn blocks_for_fuzzing_are_whole_and_are_written_when_asked_for() {
    let mut runner = TestRunner::deterministic();
    let mut any = |n| any_batch(n..=n).new_tree(&mut runner).unwrap().current();
    let mut blocks =
        vec![("empty", sections(Vec::new(), Packer::idle())), ("packed", sections(shop(40, 1), Packer::new()))];
    blocks.push(("shop", sections(shop(60, 2), Packer::idle())));
    blocks.push(("shop-of-one-trace", sections(shop(3, 3), Packer::idle())));
    for (name, n) in [("any-1", 1), ("any-2", 2), ("any-5", 5), ("any-20", 20)] {
        blocks.push((name, sections(vec![any(n), any(n)], Packer::idle())));
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/block");
    for (name, sections) in blocks {
        let block = Block::open(&sections).unwrap();
        let rows: Vec<u32> = (0..block.summary().spans).collect();
        assert_eq!(block.spans(&sections, &rows).unwrap().spans.len(), rows.len(), "{name}");
        let with_number = |(id, bytes): &(SectionId, Vec<u8>)| [SECTION, id.0.to_be_bytes().as_slice(), bytes].concat();
        let bytes: Vec<u8> = sections.iter().flat_map(with_number).collect();
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}
