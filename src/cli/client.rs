//! The native API from the other side: blocking requests, errors in the server's own words.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ureq::Agent;

/// No answer of the native API takes nearly as long.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A server that answers questions.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
}

/// A reply that arrived, whatever it says.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after_secs: Option<u64>,
    pub(super) body: String,
}

impl Client {
    pub(super) fn new(url: &str) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build();
        Self { agent: config.into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// The URL of a path, for a person to open.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The body of a successful answer.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
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
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        let patient = request.config().timeout_global(None).timeout_recv_response(Some(ANSWER_WITHIN)).build();
        let mut response = patient.call().with_context(|| self.unreachable())?;
        if response.status().is_success() {
            return Ok(response.into_body().into_reader());
        }
        bail!("{}", error_of(response.body_mut().read_to_string()?));
    }

    /// Sends a body; every status is an answer.
    pub(super) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Reply> {
        let request = self.agent.post(self.url(path)).content_type(content_type);
        let mut response = request.send(body).with_context(|| self.unreachable())?;
        let retry_after = response.headers().get("retry-after");
        let retry_after_secs = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        Ok(Reply { status, retry_after_secs, body: response.body_mut().read_to_string().unwrap_or_default() })
    }

    fn unreachable(&self) -> String {
        format!("no answer from {}; is `spandrel serve` running there?", self.url)
    }
}

/// The server's own words.
fn error_of(body: String) -> String {
    serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|error| Some(error.get("error")?.as_str()?.to_owned()))
        .unwrap_or(body)
}
