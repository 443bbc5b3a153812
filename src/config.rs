//! Settings: flags beat environment, environment beats the file, the file beats the defaults. One table makes the
//! flags, the `SPANDREL_..` names and the keys of the file; everything is validated once.

mod dimensions;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::api::access::AccessSettings;
use crate::api::listen::{ConnectionLimits, TlsFiles};
use crate::feed::{Histograms, RemoteWrite, Version};
use crate::ingest::IngestConfig;
use crate::journal::Durability;
use crate::limits;
use crate::model::DurationNanos;
use crate::store::{KeepRule, StoreConfig};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// Below it a head is too small for blocks worth their dictionaries.
const MEMORY_BYTES_MIN: u64 = 64 * MIB;
/// 65,536 spans of 1.5 KiB in memory.
const HEAD_BYTES_MAX: u64 = 96 * MIB;
/// What an open sealed partition takes, caches included.
const OPEN_PARTITION_BYTES: u64 = 4 * MIB;
/// Each is a handful of file descriptors.
const OPEN_PARTITIONS_MAX: usize = 64;
/// Requests waiting for the journal: their bytes are bounded by the memory, this bounds their number.
const QUEUE_REQUESTS_MAX: usize = 1_024;
/// Read within a tenth of a second or so.
const VERIFY_AT_START_BYTES_MAX: u64 = 64 * MIB;

/// Every setting as one source gives it: all optional, nothing validated. The doc comments are the manual.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Directory of everything on disk [default: ./spandrel-data]
    #[arg(long, env = "SPANDREL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for OTLP over gRPC [default: 127.0.0.1:4317]
    #[arg(long, env = "SPANDREL_OTLP_GRPC", value_name = "ADDR")]
    pub otlp_grpc: Option<String>,
    /// Address for OTLP over HTTP [default: 127.0.0.1:4318]
    #[arg(long, env = "SPANDREL_OTLP_HTTP", value_name = "ADDR")]
    pub otlp_http: Option<String>,
    /// Address for questions: the native API, Tempo's, metrics [default: 127.0.0.1:3200]
    #[arg(long, env = "SPANDREL_HTTP", value_name = "ADDR")]
    pub http: Option<String>,
    /// Certificate of the server, PEM, with its intermediates; turns on TLS on every port. Renewed from the file
    #[arg(long, env = "SPANDREL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, PEM
    #[arg(long, env = "SPANDREL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of client certificates, PEM; every client has to show one of theirs
    #[arg(long, env = "SPANDREL_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Client certificates that are revoked (CRL), PEM
    #[arg(long, env = "SPANDREL_TLS_CLIENT_CRL", value_name = "FILE")]
    pub tls_client_crl: Option<PathBuf>,
    /// Tokens that are asked for on every port, as `spandrel token` writes them. Read again when it changes
    #[arg(long, env = "SPANDREL_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Listen beyond loopback without TLS or without credentials: everybody who reaches a port may read and write
    /// [default: false]
    #[arg(long, env = "SPANDREL_ALLOW_OPEN_BIND", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_open_bind: Option<bool>,
    /// Origins of web pages that may send spans, comma-separated, such as https://*.example.com [default: none]
    #[arg(long, env = "SPANDREL_CORS_ORIGINS", value_name = "LIST", value_delimiter = ',')]
    pub cors_origins: Option<Vec<String>>,
    /// Connections at once, all ports together [default: 4096]
    #[arg(long, env = "SPANDREL_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Connections at once from one address [default: 256]
    #[arg(long, env = "SPANDREL_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N")]
    pub connections_per_address_max: Option<usize>,
    /// Resource attributes by which a service's latency can be split over any window, comma-separated [default: environment,
    /// region, zone, node, pod, host and version by their semantic conventions]
    #[arg(long, env = "SPANDREL_PEEL_DIMENSIONS", value_name = "LIST", value_delimiter = ',')]
    pub peel_dimensions: Option<Vec<String>>,
    /// Peel dimensions that metrics of entry spans have as labels, comma-separated, or all [default: none]
    #[arg(long, env = "SPANDREL_METRIC_DIMENSIONS", value_name = "LIST", value_delimiter = ',')]
    pub metric_dimensions: Option<Vec<String>>,
    /// Services that send only INTERNAL spans, comma-separated: their outermost spans count as the service's latency
    /// [default: none]
    #[arg(long, env = "SPANDREL_ENTRY_SPANS", value_name = "LIST", value_delimiter = ',')]
    pub entry_spans: Option<Vec<String>>,
    /// Address for Zipkin v2 spans over HTTP, such as 127.0.0.1:9411 [default: off]
    #[arg(long, env = "SPANDREL_ZIPKIN", value_name = "ADDR")]
    pub zipkin: Option<String>,
    /// Where span metrics are written to by remote write, such as http://127.0.0.1:9090/api/v1/write [default: nowhere]
    #[arg(long, env = "SPANDREL_REMOTE_WRITE", value_name = "URL")]
    pub remote_write: Option<String>,
    /// File with the token for it (`Authorization: Bearer`), read again for every request [default: none]
    #[arg(long, env = "SPANDREL_REMOTE_WRITE_TOKEN", value_name = "FILE")]
    pub remote_write_token: Option<PathBuf>,
    /// Its version: "2", "1", or "auto", which is 2 until the receiver turns out not to know it [default: auto]
    #[arg(long, env = "SPANDREL_REMOTE_WRITE_VERSION", value_name = "VERSION")]
    pub remote_write_version: Option<String>,
    /// Its histograms: "classic", "native" (only for a receiver that keeps them) or "both" [default: classic]
    #[arg(long, env = "SPANDREL_REMOTE_WRITE_HISTOGRAMS", value_name = "KIND")]
    pub remote_write_histograms: Option<String>,
    /// When a request is acknowledged: "fsync" (survives a power cut) or "relaxed" (survives kill -9) [default: fsync]
    #[arg(long, env = "SPANDREL_DURABILITY", value_name = "MODE")]
    pub durability: Option<String>,
    /// Age at which spans leave, by whole partitions; in the file also one per service [default: 7d]
    #[arg(long, env = "SPANDREL_RETENTION", value_name = "DURATION", value_parser = clap::value_parser!(Retention))]
    pub retention: Option<Retention>,
    /// Age at which roll-ups leave, which stay when their spans have left, and the traces that they show with them
    /// [default: 400d]
    #[arg(long, env = "SPANDREL_ROLLUP_RETENTION", value_name = "DURATION")]
    pub rollup_retention: Option<String>,
    /// Disk space of all partitions; above it the oldest leave [default: 50GiB]
    #[arg(long, env = "SPANDREL_MAX_DISK", value_name = "SIZE")]
    pub max_disk: Option<String>,
    /// Largest request, as received and again after inflation [default: 64MiB]
    #[arg(long, env = "SPANDREL_BODY_BYTES_MAX", value_name = "SIZE")]
    pub body_bytes_max: Option<String>,
    /// Memory to make do with: heads, request bodies, caches and open partitions are budgeted from it, and requests that do
    /// not fit are refused with a retry hint before they are read [default: 256MiB]
    #[arg(long, env = "SPANDREL_MEMORY", value_name = "SIZE")]
    pub memory: Option<String>,
    /// Age at which the spans in memory become a block, if they are not 65,536 before [default: 1m]
    #[arg(long, env = "SPANDREL_CHECKPOINT_INTERVAL", value_name = "DURATION")]
    pub checkpoint_interval: Option<String>,
    /// Age at which a partition is sealed [default: 1h]
    #[arg(long, env = "SPANDREL_PARTITION_AGE", value_name = "DURATION")]
    pub partition_age: Option<String>,
    /// Size of its blocks at which a partition is sealed; until then they stay in memory [default: a quarter of memory]
    #[arg(long, env = "SPANDREL_PARTITION_SIZE", value_name = "SIZE")]
    pub partition_size: Option<String>,
    /// Pad 64-bit trace ids with zeros instead of rejecting their spans [default: false]
    #[arg(long, env = "SPANDREL_PAD_64BIT_TRACE_IDS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub pad_64bit_trace_ids: Option<bool>,
}

/// How long spans stay: `retention = "7d"`, or a list of `[[retention]]` tables in the file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged, expecting = "retention is a duration such as \"7d\", or [[retention]] tables with service and keep")]
pub enum Retention {
    /// The same for every service.
    All(String),
    /// One rule per service; the one without a service is for all others.
    Rules(Vec<RetentionRule>),
}

/// One `[[retention]]` table.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// `service.name`; every service without a rule when missing.
    pub service: Option<String>,
    /// Age at which its spans leave.
    pub keep: String,
}

impl From<String> for Retention {
    fn from(keep: String) -> Self {
        Self::All(keep)
    }
}

impl Retention {
    /// A flag speaks of all services: the rules of the file for single ones stay.
    fn or(self, fallback: Option<Self>) -> Self {
        match (self, fallback) {
            (Self::All(keep), Some(Self::Rules(mut rules))) => {
                rules.retain(|rule| rule.service.is_some());
                rules.push(RetentionRule { service: None, keep });
                Self::Rules(rules)
            }
            (own, _) => own,
        }
    }

    /// For all services, and for single ones.
    fn resolve(self) -> Result<(DurationNanos, Vec<KeepRule>), ConfigError> {
        let rules = match self {
            Self::All(keep) => return Ok((duration("retention", Some(&keep), "7d")?, Vec::new())),
            Self::Rules(rules) => rules,
        };
        let (mut of_all, mut keep) = (None, Vec::<KeepRule>::new());
        for rule in rules {
            let age = duration("retention.keep", Some(&rule.keep), "7d")?;
            let twice = match rule.service {
                None => of_all.replace(age).map(|_| "all services".to_owned()),
                Some(service) if keep.iter().any(|known| known.service == service) => Some(service),
                Some(service) => {
                    keep.push(KeepRule { service, keep: age });
                    None
                }
            };
            if let Some(service) = twice {
                return Err(ConfigError::Conflict(format!(
                    "there are two [[retention]] rules for {service}; keep one"
                )));
            }
        }
        Ok((of_all.map_or_else(|| duration("retention", None, "7d"), Ok)?, keep))
    }
}

/// Settings that hold together.
#[derive(Clone, Debug)]
pub struct Config {
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// Questions.
    pub http: SocketAddr,
    /// TLS of every port.
    pub tls: Option<TlsFiles>,
    /// Who may do what.
    pub access: AccessSettings,
    /// Where span metrics are written to.
    pub remote_write: Option<RemoteWrite>,
    /// Bounds of connections.
    pub connections: ConnectionLimits,
    /// Zipkin v2 over HTTP; off when `None`.
    pub zipkin: Option<SocketAddr>,
    /// Bytes of one request.
    pub body_bytes_max: usize,
    /// The way in.
    pub ingest: IngestConfig,
    /// The store.
    pub store: StoreConfig,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}")]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key that is none of ours.
    #[error("settings file {path}: {why}")]
    File {
        /// As given.
        path: PathBuf,
        /// Line, key and what was expected.
        why: String,
    },
    /// A value that cannot be used.
    #[error("{key} = {value:?} is not {expected}")]
    Value {
        /// The setting.
        key: &'static str,
        /// As given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Two settings that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

impl RawConfig {
    /// The settings of a TOML file.
    ///
    /// # Errors
    /// `Unreadable`, or `File` naming the line and the unknown key.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::File {
            path: path.to_path_buf(),
            why: error.to_string().trim_end().to_owned(),
        })
    }

    /// What is set here, else what `fallback` sets.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(fallback.data_dir),
            otlp_grpc: self.otlp_grpc.or(fallback.otlp_grpc),
            otlp_http: self.otlp_http.or(fallback.otlp_http),
            http: self.http.or(fallback.http),
            tls_cert: self.tls_cert.or(fallback.tls_cert),
            tls_key: self.tls_key.or(fallback.tls_key),
            tls_client_ca: self.tls_client_ca.or(fallback.tls_client_ca),
            tls_client_crl: self.tls_client_crl.or(fallback.tls_client_crl),
            tokens: self.tokens.or(fallback.tokens),
            allow_open_bind: self.allow_open_bind.or(fallback.allow_open_bind),
            cors_origins: self.cors_origins.or(fallback.cors_origins),
            connections_max: self.connections_max.or(fallback.connections_max),
            connections_per_address_max: self.connections_per_address_max.or(fallback.connections_per_address_max),
            peel_dimensions: self.peel_dimensions.or(fallback.peel_dimensions),
            metric_dimensions: self.metric_dimensions.or(fallback.metric_dimensions),
            entry_spans: self.entry_spans.or(fallback.entry_spans),
            zipkin: self.zipkin.or(fallback.zipkin),
            remote_write: self.remote_write.or(fallback.remote_write),
            remote_write_token: self.remote_write_token.or(fallback.remote_write_token),
            remote_write_version: self.remote_write_version.or(fallback.remote_write_version),
            remote_write_histograms: self.remote_write_histograms.or(fallback.remote_write_histograms),
            durability: self.durability.or(fallback.durability),
            retention: match self.retention {
                Some(own) => Some(own.or(fallback.retention)),
                None => fallback.retention,
            },
            rollup_retention: self.rollup_retention.or(fallback.rollup_retention),
            max_disk: self.max_disk.or(fallback.max_disk),
            body_bytes_max: self.body_bytes_max.or(fallback.body_bytes_max),
            memory: self.memory.or(fallback.memory),
            checkpoint_interval: self.checkpoint_interval.or(fallback.checkpoint_interval),
            partition_age: self.partition_age.or(fallback.partition_age),
            partition_size: self.partition_size.or(fallback.partition_size),
            pad_64bit_trace_ids: self.pad_64bit_trace_ids.or(fallback.pad_64bit_trace_ids),
        }
    }

    /// Fills in the defaults and validates.
    ///
    /// # Errors
    /// Names the setting, the value and what would be right.
    pub fn resolve(mut self) -> Result<Config, ConfigError> {
        let remote_write = remote_write(&mut self)?;
        let (retention, keep) = self.retention.unwrap_or_else(|| Retention::All("7d".to_owned())).resolve()?;
        // A late span of a service that is kept longer is not refused before its time.
        let longest = keep.iter().map(|rule| rule.keep).max().map_or(retention, |longest| longest.max(retention));
        let memory = memory(self.memory.as_deref())?;
        let body_bytes_max = body_bytes_max(self.body_bytes_max.as_deref(), &memory)?;
        let ingest = IngestConfig {
            durability: durability(self.durability.as_deref())?,
            body_bytes_in_flight_max: bytes(memory.requests),
            queue_requests_max: QUEUE_REQUESTS_MAX,
            retention: Some(longest),
            pad_64bit_trace_ids: self.pad_64bit_trace_ids.unwrap_or(false),
            checkpoint_spans: limits::BLOCK_SPANS_MAX as u64,
            checkpoint_bytes: bytes(memory.head),
            checkpoint_interval: duration("checkpoint-interval", self.checkpoint_interval.as_deref(), "1m")?,
            partition_age_max: duration("partition-age", self.partition_age.as_deref(), "1h")?,
            partition_bytes_max: size("partition-size", self.partition_size.as_deref(), memory.partition)?,
            journal_segment_bytes: 64 * MIB,
        };
        let store = StoreConfig {
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("spandrel-data")),
            cache_bytes: memory.cache,
            open_partitions_max: memory.open_partitions,
            retention: Some(retention),
            rollup_retention: Some(duration("rollup-retention", self.rollup_retention.as_deref(), "400d")?),
            remnants_merged_at_once: limits::REMNANTS_MERGED_AT_ONCE,
            keep,
            conventions: Arc::new(dimensions::conventions(
                self.peel_dimensions,
                self.metric_dimensions,
                self.entry_spans,
            )?),
            disk_bytes_max: size("max-disk", self.max_disk.as_deref(), 50 * GIB)?,
            verify_at_start_bytes_max: VERIFY_AT_START_BYTES_MAX,
        };
        let otlp_grpc = address("otlp-grpc", self.otlp_grpc.as_deref(), "127.0.0.1:4317")?;
        let otlp_http = address("otlp-http", self.otlp_http.as_deref(), "127.0.0.1:4318")?;
        let http = address("http", self.http.as_deref(), "127.0.0.1:3200")?;
        let tls = tls(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_client_crl)?;
        let access = AccessSettings { tokens: self.tokens, cors_origins: self.cors_origins.unwrap_or_default() };
        let zipkin = self.zipkin.map(|text| address("zipkin", Some(&text), "")).transpose()?;
        if !self.allow_open_bind.unwrap_or(false) {
            let ports = [("otlp-grpc", otlp_grpc), ("otlp-http", otlp_http), ("http", http)];
            for (key, address) in ports.into_iter().chain(zipkin.map(|address| ("zipkin", address))) {
                refuse_open_bind(key, address, tls.as_ref(), &access)?;
            }
        }
        let defaults = ConnectionLimits::default();
        let connections = ConnectionLimits {
            connections_max: self.connections_max.unwrap_or(defaults.connections_max),
            connections_per_address_max: self
                .connections_per_address_max
                .unwrap_or(defaults.connections_per_address_max),
            ..defaults
        };
        Ok(Config {
            otlp_grpc,
            otlp_http,
            http,
            zipkin,
            tls,
            access,
            remote_write,
            connections,
            body_bytes_max: bytes(body_bytes_max),
            ingest,
            store,
        })
    }
}

/// Whether the environment leaves colours to us (<https://no-color.org>).
pub fn color_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn bad(key: &'static str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::Value { key, value: value.to_owned(), expected }
}

fn address(key: &'static str, text: Option<&str>, default: &str) -> Result<SocketAddr, ConfigError> {
    let text = text.unwrap_or(default);
    text.parse().map_err(|_| bad(key, text, "an IP address with a port, such as 127.0.0.1:4317"))
}

/// Takes what it needs of the settings.
fn remote_write(raw: &mut RawConfig) -> Result<Option<RemoteWrite>, ConfigError> {
    let (version, histograms) = (raw.remote_write_version.take(), raw.remote_write_histograms.take());
    let token_file = raw.remote_write_token.take();
    let Some(url) = raw.remote_write.take() else {
        let lonely = [
            ("remote-write-token", token_file.is_some()),
            ("remote-write-version", version.is_some()),
            ("remote-write-histograms", histograms.is_some()),
        ];
        return match lonely.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(ConfigError::Conflict(format!("{key} needs remote-write"))),
            None => Ok(None),
        };
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(bad("remote-write", &url, "the address of a receiver, such as http://127.0.0.1:9090/api/v1/write"));
    }
    let version = match version.as_deref().unwrap_or("auto") {
        "auto" => Version::Auto,
        "1" => Version::One,
        "2" => Version::Two,
        other => return Err(bad("remote-write-version", other, "\"auto\", \"1\" or \"2\"")),
    };
    let histograms = match histograms.as_deref().unwrap_or("classic") {
        "classic" => Histograms::Classic,
        "native" => Histograms::Native,
        "both" => Histograms::Both,
        other => return Err(bad("remote-write-histograms", other, "\"classic\", \"native\" or \"both\"")),
    };
    Ok(Some(RemoteWrite { url, token_file, version, histograms }))
}

fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authorities: Option<PathBuf>,
    client_revocations: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let conflict = |why: &str| Err(ConfigError::Conflict(why.to_owned()));
    if client_revocations.is_some() && client_authorities.is_none() {
        return conflict("tls-client-crl needs tls-client-ca: without it no client certificate is asked for");
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate, key, client_authorities, client_revocations }))
        }
        (None, None) if client_authorities.is_some() => conflict("tls-client-ca needs tls-cert and tls-key"),
        (None, None) => Ok(None),
        (Some(_), None) => conflict("tls-cert needs tls-key"),
        (None, Some(_)) => conflict("tls-key needs tls-cert"),
    }
}

/// Beyond loopback spans and tokens are for everybody to read without TLS, and for everybody to write without credentials.
fn refuse_open_bind(
    key: &'static str,
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    access: &AccessSettings,
) -> Result<(), ConfigError> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let has_credentials = access.tokens.is_some() || tls.is_some_and(|files| files.client_authorities.is_some());
    let missing = match (tls.is_some(), has_credentials) {
        (true, true) => return Ok(()),
        (true, false) => "credentials: set tokens (\"spandrel token\" makes them) or tls-client-ca",
        (false, true) => "TLS: set tls-cert and tls-key",
        (false, false) => "TLS and credentials: set tls-cert, tls-key and tokens",
    };
    let why = format!(
        "{key} = {address} is open to the network, without {missing}; or say allow-open-bind where something else guards \
         the port"
    );
    Err(ConfigError::Conflict(why))
}

fn duration(key: &'static str, text: Option<&str>, default: &str) -> Result<DurationNanos, ConfigError> {
    let text = text.unwrap_or(default);
    let parsed = humantime::parse_duration(text).ok().filter(|parsed| *parsed != Duration::ZERO);
    parsed.map(DurationNanos::from).ok_or_else(|| bad(key, text, "a duration above zero, such as 15m, 36h or 7d"))
}

fn size(key: &'static str, text: Option<&str>, default: u64) -> Result<u64, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let parsed = text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()).filter(|size| *size != 0);
    parsed.ok_or_else(|| bad(key, text, "a size above zero, such as 512MiB or 50GiB"))
}

/// What is admitted at all has to be admissible, and to be read back from a journal.
fn body_bytes_max(text: Option<&str>, memory: &Memory) -> Result<u64, ConfigError> {
    let bytes = size("body-bytes-max", text, memory.requests.min(64 * MIB))?;
    if (limits::REQUEST_BYTES_MAX as u64) < bytes {
        return Err(bad("body-bytes-max", text.unwrap_or_default(), "a size of at most 512MiB"));
    }
    if memory.requests < bytes {
        let why = format!(
            "body-bytes-max is {bytes} bytes, but a quarter of memory is {} bytes: the largest request could never be \
             admitted; raise memory to 4 x body-bytes-max",
            memory.requests
        );
        return Err(ConfigError::Conflict(why));
    }
    Ok(bytes)
}

/// What `--memory` buys.
struct Memory {
    /// Bytes of the head before it becomes a block. Two of them exist at once: one fills, one is being written.
    head: u64,
    /// Bytes of requests that are being read, decoded or waiting for the journal.
    requests: u64,
    /// Blocks of the partition that grows: sled holds them in memory, whatever its cache is set to (docs/benchmarks.md).
    partition: u64,
    /// sled's cache in each open partition.
    cache: u64,
    /// Sealed partitions held open, beside the unsealed one.
    open_partitions: usize,
}

/// A quarter for each of the two heads, one for requests, the last for open partitions, answers and everything else.
fn memory(text: Option<&str>) -> Result<Memory, ConfigError> {
    let memory = size("memory", text, 256 * MIB)?;
    if memory < MEMORY_BYTES_MIN {
        return Err(bad("memory", text.unwrap_or_default(), "a size of at least 64MiB"));
    }
    let quarter = memory / 4;
    // Beyond a block's worth of spans a larger head is of no use.
    let head = quarter.min(HEAD_BYTES_MAX);
    let cache = (quarter / 32).clamp(MIB, 8 * MIB);
    let open_partitions = usize::try_from(quarter / OPEN_PARTITION_BYTES).unwrap_or(usize::MAX);
    Ok(Memory {
        head,
        requests: quarter,
        partition: quarter,
        cache,
        open_partitions: open_partitions.clamp(2, OPEN_PARTITIONS_MAX),
    })
}

fn durability(text: Option<&str>) -> Result<Durability, ConfigError> {
    match text.unwrap_or("fsync") {
        "fsync" => Ok(Durability::Fsync),
        "relaxed" => Ok(Durability::Relaxed),
        other => Err(bad("durability", other, "\"fsync\" or \"relaxed\"")),
    }
}

#[cfg(test)]
mod tests;
