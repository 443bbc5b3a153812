//! What is fuzzed: one function for each target. It panics when the program is at fault, whatever the bytes are.
//!
//! `tests/it/seeds.rs` includes this file and runs the functions over `fuzz/seeds` without a fuzzer.

mod block;
mod journal;
mod otlp;
mod traceql;

pub use block::block;
pub use journal::journal;
pub use otlp::{decode, json, zipkin};
pub use traceql::traceql;

use spandrel::api::inflate::{Compression, InflateError, Inflating};

/// The first byte chooses the compression, the second the limit in steps of 1 KiB.
///
/// Never more than the limit comes out, and a limit of exactly what came out changes nothing.
pub fn body(bytes: &[u8]) {
    let Some(([compression, limit], body)) = bytes.split_first_chunk() else { return };
    let compression = match compression % 3 {
        0 => Compression::Gzip,
        1 => Compression::Zstd,
        _ => Compression::Deflate,
    };
    let limit = usize::from(*limit) * 1024;
    let Ok(whole) = inflated(body, compression, limit) else { return };
    let again = inflated(body, compression, whole.len()).expect("it is no longer than it was");
    assert!(again == whole, "another limit, another body");
    if let Some(below) = whole.len().checked_sub(1) {
        let refused = inflated(body, compression, below);
        assert!(matches!(refused, Err(InflateError::TooLarge { .. })), "one byte too many");
    }
}

fn inflated(body: &[u8], compression: Compression, limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut inflating = Inflating::new(body.to_vec(), compression, limit)?;
    loop {
        let more = inflating.step();
        assert!(inflating.inflated().len() <= limit + usize::from(more.is_err()), "{limit}");
        if !more? {
            return Ok(inflating.into_inflated());
        }
    }
}
