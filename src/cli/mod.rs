//! The command line: what a person or a script types.

pub mod serve;
pub mod shop;

use std::process::ExitCode;

/// temp
pub fn main() -> ExitCode {
    let _ = tracing_subscriber::fmt().try_init();
    match serve::run(&serve::ServeArgs::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
