//! `spandrel token`: who may send, ask or do everything.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::api::access::{Scope, new_token};
use crate::clock::Clock;

use super::print;

/// Flags of `token`.
#[derive(clap::Args, Debug)]
pub(super) struct TokenArgs {
    /// Whose token it is, for people
    name: String,
    /// What it allows, comma-separated
    #[arg(long, value_enum, value_delimiter = ',', required = true, value_name = "LIST")]
    scopes: Vec<ScopeArg>,
    /// Time after which it is refused, such as 90d [default: never]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    expires_in: Option<Duration>,
    /// Token file to add it to; made if it is not there
    #[arg(long, env = "SPANDREL_TOKENS", default_value = "tokens.toml", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    /// Sending spans
    Ingest,
    /// Asking questions
    Query,
    /// Everything
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(arg: ScopeArg) -> Self {
        match arg {
            ScopeArg::Ingest => Self::Ingest,
            ScopeArg::Query => Self::Query,
            ScopeArg::Admin => Self::Admin,
        }
    }
}

#[derive(serde::Serialize)]
struct Entries<T> {
    token: [T; 1],
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let scopes: Vec<Scope> = args.scopes.iter().copied().map(Scope::from).collect();
    let expires = args.expires_in.map(|after| {
        let seconds = Clock::system().now().0 / 1_000_000_000 + after.as_secs();
        jiff::Timestamp::from_second(i64::try_from(seconds)?)
            .map(|time| time.to_string())
            .context("a time too far away")
    });
    let (token, entry) = new_token(&args.name, &scopes, expires.transpose()?).context("no randomness")?;
    let text = toml::to_string(&Entries { token: [entry] })?;
    let file = args.file.display();
    let mut open = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(open.create(true).append(true), 0o600)
        .open(&args.file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()))
        .with_context(|| format!("cannot write {file}"))?;
    eprintln!("added to {file}; this is the token, it is shown this once:");
    print(&format!("{token}\n"))
}
