//! The native API from the other side: blocking requests, errors in the server's own words.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

/// No answer of the native API takes nearly as long.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Who asks, of a server that wants to know.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Credentials {
    /// Token of `spandrel token`; better given by the environment, since others see flags
    #[arg(long, env = "SPANDREL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Authorities of the server's certificate, PEM [default: those of the web]
    #[arg(long, env = "SPANDREL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate with its private key, both in one PEM file
    #[arg(long, env = "SPANDREL_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,
}

/// A server that answers questions.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

/// A reply that arrived, whatever it says.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after_secs: Option<u64>,
    pub(super) body: String,
}

impl Client {
    pub(super) fn new(url: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WITHIN))
            .tls_config(credentials.tls()?)
            .build();
        let authorization = credentials.token.as_ref().map(|token| format!("Bearer {token}"));
        Ok(Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), authorization })
    }

    /// The URL of a path, for a person to open.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The body of a successful answer.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
        let request = self.authorized(self.agent.get(self.url(path))).query_pairs(query.iter().copied());
        let mut response = request.call().with_context(|| self.unreachable())?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(512 * 1024 * 1024).read_to_string()?;
        if status.is_success() {
            return Ok(body);
        }
        bail!("{}", error_of(body));
    }

    /// The body of a successful answer as it comes, however long that takes.
    pub(super) fn stream(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<impl std::io::Read + use<>> {
        let request = self.authorized(self.agent.get(self.url(path))).query_pairs(query.iter().copied());
        let patient = request.config().timeout_global(None).timeout_recv_response(Some(ANSWER_WITHIN)).build();
        let mut response = patient.call().with_context(|| self.unreachable())?;
        if response.status().is_success() {
            return Ok(response.into_body().into_reader());
        }
        bail!("{}", error_of(response.body_mut().read_to_string()?));
    }

    /// Sends a body; every status is an answer.
    pub(super) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Reply> {
        let request = self.authorized(self.agent.post(self.url(path))).content_type(content_type);
        let mut response = request.send(body).with_context(|| self.unreachable())?;
        let retry_after = response.headers().get("retry-after");
        let retry_after_secs = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        Ok(Reply { status, retry_after_secs, body: response.body_mut().read_to_string().unwrap_or_default() })
    }

    /// Removes what stands under a path.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.authorized(self.agent.delete(self.url(path)));
        let mut response = request.call().with_context(|| self.unreachable())?;
        if response.status().is_success() {
            return Ok(());
        }
        bail!("{}", error_of(response.body_mut().read_to_string()?));
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn unreachable(&self) -> String {
        format!("no answer from {}; is `spandrel serve` running there?", self.url)
    }
}

impl Credentials {
    fn tls(&self) -> anyhow::Result<TlsConfig> {
        let mut config = TlsConfig::builder();
        if let Some(path) = &self.ca {
            let (certificates, _) = pem(path)?;
            config = config.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        if let Some(path) = &self.client_cert {
            let (certificates, key) = pem(path)?;
            let key = key.with_context(|| format!("{}: no private key in it", path.display()))?;
            config = config.client_cert(Some(ClientCert::new_with_certs(&certificates, key)));
        }
        Ok(config.build())
    }
}

fn pem(path: &Path) -> anyhow::Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>)> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in ureq::tls::parse_pem(&text) {
        match item.with_context(|| format!("{}: no PEM", path.display()))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(found) => key = Some(found),
            _ => {}
        }
    }
    if certificates.is_empty() {
        bail!("{}: no certificate (PEM) in it", path.display());
    }
    Ok((certificates, key))
}

/// The server's own words.
pub(super) fn error_of(body: String) -> String {
    serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|error| Some(error.get("error").or(error.get("message"))?.as_str()?.to_owned()))
        .unwrap_or(body)
}
