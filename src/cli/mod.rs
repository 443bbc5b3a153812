//! The command line: what a person or a script types.

mod ask;
mod backup;
mod check;
mod client;
mod data_dir;
mod demo;
mod export;
mod load;
mod otlp_file;
mod pins;
mod query;
pub mod render;
pub mod serve;
pub mod shop;
mod token;
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
    /// Who calls whom: rate, failures and latency of every pair of services
    Graph(ask::GraphArgs),
    /// One trace as a waterfall
    Trace(ask::TraceArgs),
    /// The newest traces with spans for which a TraceQL filter is true
    Search(ask::SearchArgs),
    /// Numbers over time of spans: rates, quantiles, comparisons, in TraceQL, drawn in the terminal
    Query(query::QueryArgs),
    /// Which services are stored
    Services(ask::ServicesArgs),
    /// Keep a trace when what is around it leaves
    ///
    /// It opens until the pin expires, whatever retention and roll-ups say. A server with --tokens wants a token of the scope
    /// admin for it.
    Pin(pins::PinArgs),
    /// Take a pin back
    Unpin(pins::UnpinArgs),
    /// List the pinned traces
    Pins(pins::PinsArgs),
    /// Send files of OTLP spans (JSON, JSON lines or protobuf) to a server
    Load(load::LoadArgs),
    /// Write stored spans as OTLP JSON lines or protobuf, for `load` and every other reader of OTLP
    ///
    /// From a running server, or with --data-dir from a directory that no server uses. A span comes once per place where
    /// it is stored: twice only if it was sent in two requests that lie in two blocks. What could not be read is said on
    /// stderr, and the exit code is 1.
    Export(export::ExportArgs),
    /// Verify a data directory: checksums, counts, index and histograms against the spans, journals
    ///
    /// The server has to be stopped; a backup can be checked at any time. Nothing is moved without --repair, and never
    /// is anything deleted. A database is opened as every start opens it, and a sealed one only when its files are what
    /// was sealed. The exit code is 0 when everything is sound, 1 when something is damaged (also when it was moved), 2
    /// when it could not be checked.
    Check(check::CheckArgs),
    /// Copy a data directory, also while its server runs
    ///
    /// Every span that was acknowledged before the start is in the backup, unless retention removed it meanwhile. Into a
    /// directory with an earlier backup only what is new is copied. Until the file BACKUP is there, the last one
    /// written, it is no backup. The exit code is 1 when parts of the data directory are damaged: the rest is copied.
    Backup(backup::BackupArgs),
    /// Make a data directory of a backup, verifying every byte
    Restore(backup::RestoreArgs),
    /// Make a token for a server with --tokens, and write its entry into the token file
    ///
    /// The token is printed once and kept nowhere: the file holds its hash. A running server reads the file again within
    /// a second. To take a token back, remove its entry.
    Token(token::TokenArgs),
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
    let done = |outcome: anyhow::Result<()>| outcome.map(|()| ExitCode::SUCCESS);
    let outcome = match &cli.command {
        Command::Serve(args) => done(serve::run(args)),
        Command::Demo(args) => done(demo::run(args)),
        Command::P99(args) => done(ask::percentile(args)),
        Command::Graph(args) => done(ask::graph(args)),
        Command::Trace(args) => done(ask::trace(args)),
        Command::Search(args) => done(ask::search(args)),
        Command::Query(args) => done(query::run(args)),
        Command::Services(args) => done(ask::services(args)),
        Command::Pin(args) => done(pins::pin(args)),
        Command::Unpin(args) => done(pins::unpin(args)),
        Command::Pins(args) => done(pins::pins(args)),
        Command::Load(args) => done(load::run(args)),
        Command::Export(args) => export::run(args),
        Command::Check(args) => check::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => done(backup::restore(args)),
        Command::Token(args) => done(token::run(args)),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "spandrel", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("spandrel: {error:#}");
        let unchecked = matches!(cli.command, Command::Check(_));
        if unchecked { ExitCode::from(check::NOT_CHECKED) } else { ExitCode::FAILURE }
    })
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

/// "1 block", "2 blocks".
fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", indicatif::HumanCount(n as u64), if n == 1 { "" } else { "s" })
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
