//! Pinning traces by hand: the only thing on this port that changes anything.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{MethodRouter, get, post};
use serde::{Deserialize, Serialize};

use crate::api::params::{BadParameter, Params, parse_time};
use crate::api::{Doors, native};
use crate::limits::PIN_SECS;
use crate::model::{DurationNanos, TraceId, UnixNanos};
use crate::query::Pin;

use super::Failure;

/// A note is at most a kilobyte.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Of all pins.
pub(super) fn all() -> MethodRouter<Doors> {
    get(list)
}

/// Of one trace.
pub(super) fn one() -> MethodRouter<Doors> {
    post(pin).delete(unpin).layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PinBody {
    note: String,
    expires: Option<String>,
}

#[derive(Debug, Serialize)]
struct PinJson {
    trace_id: String,
    note: String,
    pinned_at_unix_nano: String,
    /// `null` when it never does.
    expires_unix_nano: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PinsJson {
    pins: Vec<PinJson>,
}

impl From<Pin> for PinJson {
    fn from(pin: Pin) -> Self {
        Self {
            trace_id: pin.trace.to_string(),
            note: pin.note,
            pinned_at_unix_nano: pin.pinned_at.0.to_string(),
            expires_unix_nano: pin.expires.map(|expires| expires.0.to_string()),
        }
    }
}

async fn list(State(doors): State<Doors>, uri: Uri) -> Result<Json<PinsJson>, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let pins = doors.ask(native::DOOR, crate::query::Query::pins).await?;
    Ok(Json(PinsJson { pins: pins.into_iter().map(PinJson::from).collect() }))
}

async fn pin(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    uri: Uri,
    body: Bytes,
) -> Result<Json<PinJson>, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let trace = trace_id(&id)?;
    let body: PinBody = match body.trim_ascii() {
        [] => PinBody::default(),
        body => serde_json::from_slice(body)
            .map_err(|error| BadParameter(format!("the body is not {{\"note\": .., \"expires\": ..}}: {error}")))?,
    };
    let expires = expires(body.expires.as_deref(), doors.query.now())?;
    let pin = doors.ask(native::DOOR, move |query| query.pin(trace, body.note, expires)).await?;
    Ok(Json(PinJson::from(pin)))
}

async fn unpin(State(doors): State<Doors>, Path(id): Path<String>, uri: Uri) -> Result<StatusCode, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let trace = trace_id(&id)?;
    doors.ask(native::DOOR, move |query| query.unpin(trace)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn trace_id(text: &str) -> Result<TraceId, BadParameter> {
    TraceId::parse_lenient(text).map_err(|error| BadParameter(error.to_string()))
}

/// `30d` from now on, RFC 3339, or `never`.
fn expires(text: Option<&str>, now: UnixNanos) -> Result<Option<UnixNanos>, BadParameter> {
    let Some(text) = text else { return Ok(Some(now.saturating_add(DurationNanos::from_secs(PIN_SECS)))) };
    if text == "never" {
        return Ok(None);
    }
    let after = humantime::parse_duration(text).ok().map(|after| now.saturating_add(DurationNanos::from(after)));
    let at = after.or_else(|| parse_time(text, now)).filter(|at| now < *at);
    let at = at.ok_or_else(|| {
        BadParameter(format!(
            "expires = {text:?} is not a time to come; use a duration (30d), RFC 3339 (2027-01-01T00:00:00Z) or never"
        ))
    });
    at.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_ends_when_it_says_or_after_a_year_and_a_bit() {
        let now = UnixNanos(1_795_428_000_000_000_000);
        let day = 86_400_000_000_000;
        for (text, expected) in [
            (None, Some(now.0 + 400 * day)),
            (Some("30d"), Some(now.0 + 30 * day)),
            (Some("2026-11-24T10:00:00Z"), Some(now.0 + day)),
            (Some("never"), None),
        ] {
            assert_eq!(expires(text, now), Ok(expected.map(UnixNanos)), "{text:?}");
        }
        for text in ["", "0s", "-1d", "2026-11-22T10:00:00Z", "tomorrow", "now"] {
            assert!(expires(Some(text), now).is_err(), "{text}");
        }
    }
}
