//! The command line: what a person or a script types.

mod ask;
mod client;
mod demo;
mod load;
pub mod render;
pub mod serve;
pub mod shop;
mod traffic;
pub mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// From the percentile that hurts to the trace that explains it.
///
/// Spandrel takes OTLP spans, keeps them on disk, and answers a percentile together with traces that lie in that very
/// bucket. Try `spandrel demo`; then point an exporter at port 4317 and ask `spandrel p99 SERVICE`.
#[derive(Parser, Debug)]
#[command(name = "spandrel", version, about, long_about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged to stderr: error, warn, info, debug, or per module as in "info,spandrel::store=debug"
    #[arg(long, env = "SPANDREL_LOG", value_name = "FILTER", global = true)]
    log: Option<String>,
    /// How it is logged
    #[arg(long, env = "SPANDREL_LOG_FORMAT", value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server: OTLP in on ports 4317 and 4318, questions on port 3200
    Serve(serve::ServeArgs),
    /// Run the server with a built-in shop that sends it spans, and show the way from a p99 to its trace
    Demo(demo::DemoArgs),
    /// Percentiles of a service, and the trace behind its p99
    P99(ask::PercentileArgs),
    /// One trace as a waterfall
    Trace(ask::TraceArgs),
    /// Which services are stored
    Services(ask::ServicesArgs),
    /// Send files of OTLP spans (JSON, JSON lines or protobuf) to a server
    Load(load::LoadArgs),
    /// Print a completion script for your shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs what the arguments say. Errors go to stderr, with their causes, once.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(&cli);
    let outcome = match &cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::P99(args) => ask::percentile(args),
        Command::Trace(args) => ask::trace(args),
        Command::Services(args) => ask::services(args),
        Command::Load(args) => load::run(args),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "spandrel", &mut std::io::stdout());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spandrel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(cli: &Cli) {
    let quiet = !matches!(cli.command, Command::Serve(_));
    let filter = cli.log.clone().unwrap_or_else(|| if quiet { "warn" } else { "info" }.to_owned());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match cli.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// Writes an answer to stdout. A reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
