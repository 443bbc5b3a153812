//! Heads of more spans than a block takes.

use super::*;

#[test]
fn a_head_that_is_larger_than_a_block_becomes_several_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.start_partition().unwrap();
    let n = crate::limits::BLOCK_SPANS_MAX as u64 + 1;
    push(&store, 1, &samples(n, 1));
    let done = checkpoint(&store, &partition);
    assert_eq!((done.spans, partition.n_blocks(), store.spans_in_memory()), (n, 2, 0));
    let found = traces(&store);
    assert_eq!((found.len() as u64, found.values().max()), (n, Some(&1)));
    assert_eq!(store.seal(&partition).unwrap().spans, n);
}
