//! The `spandrel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    spandrel::cli::main()
}
