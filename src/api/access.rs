//! Who may ask what: bearer tokens with scopes, decided from the headers alone, before a byte of the body is read.

use std::path::PathBuf;

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::model::UnixNanos;

use super::cors::Origins;
use super::watched::{FileError, Watched};

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// Shows what a leaked string is good for.
const TOKEN_PREFIX: &str = "spandrel_";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Sending spans.
    Ingest,
    /// Asking questions, and exporting what is stored. Pinning a trace is no question.
    Query,
    /// Everything.
    Admin,
}

impl Scope {
    fn allows(self, needed: Self) -> bool {
        self == needed || self == Self::Admin
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Admin => "admin",
        }
    }
}

/// One `[[token]]` table of the token file. The token itself stands nowhere.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Whose it is, for people.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// BLAKE3 of the token, 64 hex digits. A plain hash will do: a token has 256 random bits.
    pub blake3: String,
    /// When it ends, RFC 3339; never when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Debug)]
struct Token {
    scopes: Vec<Scope>,
    hash: blake3::Hash,
    expires: Option<UnixNanos>,
}

/// Settings of who may do what.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// Token file; everybody may do everything when missing.
    pub tokens: Option<PathBuf>,
    /// Origins of web pages that may send spans, each with at most one `*`.
    pub cors_origins: Vec<String>,
}

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    tokens: Option<Watched<Vec<Token>>>,
    clock: Clock,
    pub(super) origins: Origins,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("credentials are needed: send the header \"authorization: Bearer <token>\"")]
    Missing,
    #[error("the token is not known here; ask for one made by \"spandrel token\"")]
    Unknown,
    #[error("the token has expired; ask for a new one")]
    Expired,
    #[error("the token does not have the scope {:?}", .needed.name())]
    WrongScope { needed: Scope },
}

impl Denied {
    /// Word for the metric.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Missing => "no_credentials",
            Self::Unknown => "unknown_token",
            Self::Expired => "expired_token",
            Self::WrongScope { .. } => "wrong_scope",
        }
    }
}

impl Access {
    /// Reads the token file, if there is one; later changes of it are followed.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(settings: &AccessSettings, clock: Clock) -> Result<Self, FileError> {
        let tokens = settings.tokens.clone().map(|path| Watched::open(vec![path], parse)).transpose()?;
        Ok(Self { tokens, clock, origins: Origins::new(&settings.cors_origins) })
    }

    pub(super) fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    pub(super) fn check(&self, headers: &HeaderMap, needed: Scope) -> Result<(), Denied> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let given = bearer(headers).ok_or(Denied::Missing)?;
        let hash = blake3::hash(given);
        // Hashes are compared in constant time; what a position in the list takes tells nothing about a token.
        let tokens = tokens.current();
        let token = tokens.iter().find(|token| token.hash == hash).ok_or(Denied::Unknown)?;
        if token.expires.is_some_and(|expires| expires <= self.clock.now()) {
            return Err(Denied::Expired);
        }
        if token.scopes.iter().any(|scope| scope.allows(needed)) { Ok(()) } else { Err(Denied::WrongScope { needed }) }
    }
}

/// RFC 6750 2.1; the scheme is case-insensitive (RFC 9110 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn parse(files: &[Vec<u8>]) -> Result<Vec<Token>, String> {
    let text = files.first().map(Vec::as_slice).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let file: TokenFile = toml::from_str(text).map_err(|error| error.to_string())?;
    file.token.into_iter().map(token).collect()
}

fn token(entry: TokenEntry) -> Result<Token, String> {
    let TokenEntry { name, scopes, blake3, expires } = entry;
    if scopes.is_empty() {
        return Err(format!("token {name:?} has no scopes; give ingest, query or admin"));
    }
    let hash = blake3::Hash::from_hex(&blake3)
        .map_err(|_| format!("token {name:?}: blake3 is not 64 hex digits; \"spandrel token\" makes an entry"))?;
    let expires = expires.map(|text| {
        let time = super::parse_time(&text, UnixNanos(0));
        time.ok_or_else(|| format!("token {name:?}: expires = {text:?} is not a time such as 2027-01-01T00:00:00Z"))
    });
    let expires = expires.transpose()?;
    Ok(Token { scopes, hash, expires })
}

/// A new token and its entry for the token file.
///
/// # Errors
/// When the system has no randomness.
pub fn new_token(
    name: &str,
    scopes: &[Scope],
    expires: Option<String>,
) -> Result<(String, TokenEntry), getrandom::Error> {
    use std::fmt::Write as _;
    let mut random = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut random)?;
    let mut token = TOKEN_PREFIX.to_owned();
    for byte in random {
        let _infallible = write!(token, "{byte:02x}");
    }
    let blake3 = blake3::hash(token.as_bytes()).to_hex().to_string();
    let entry = TokenEntry { name: name.to_owned(), scopes: scopes.to_vec(), blake3, expires };
    Ok((token, entry))
}
