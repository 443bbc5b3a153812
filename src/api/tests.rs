use axum::http::StatusCode;
use tonic::Code;

use super::access::{Denied, Scope};
use super::refusal::{BodyError, Refusal};
use crate::ingest::ExportError;
use crate::limits::ERROR_MESSAGE_BYTES_MAX;
use crate::otlp::Undecodable;

/// Code, HTTP status, and the retry hint where there is one.
type Row = (Code, StatusCode, Option<u64>);

const INVALID: Row = (Code::InvalidArgument, StatusCode::BAD_REQUEST, None);
const TOO_LARGE: Row = (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, None);
const fn unavailable(secs: u64) -> Row {
    (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some(secs))
}

fn row(refusal: &Refusal) -> Row {
    (refusal.code, refusal.status, refusal.retry_after_secs)
}

#[test]
fn otlp_3_2_an_export_error_has_the_status_of_the_table() {
    for (error, expected) in [
        (ExportError::Undecodable(Undecodable::TooManyElements { cost_max: 1 }), TOO_LARGE),
        (ExportError::Undecodable(Undecodable::NeverFits { cost_max: 1 }), TOO_LARGE),
        (ExportError::AllRejected { message: "rejected 1 of 1 spans".to_owned() }, INVALID),
        (ExportError::Overloaded { what: "full" }, unavailable(2)),
        (ExportError::Starting, unavailable(1)),
        (ExportError::Stopping, unavailable(1)),
        (ExportError::Late, unavailable(1)),
        (ExportError::DiskFull, unavailable(3)),
        (ExportError::ReadOnly, unavailable(3)),
    ] {
        assert_eq!(row(&Refusal::of_export(&error, 4)), expected, "{error}");
    }
}

#[test]
fn otlp_3_2_a_body_error_has_the_status_of_the_table() {
    for (error, expected) in [
        (BodyError::TooLarge { limit: 1 }, TOO_LARGE),
        (BodyError::Inflate { coding: "gzip", why: "cut".to_owned() }, INVALID),
        (BodyError::ShortMessage, INVALID),
        (
            BodyError::UnsupportedCoding { coding: "br".to_owned() },
            (Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
        ),
        (BodyError::Incomplete, (Code::InvalidArgument, StatusCode::REQUEST_TIMEOUT, None)),
        (BodyError::Framing("flag"), (Code::Internal, StatusCode::BAD_REQUEST, None)),
        (BodyError::Refused(ExportError::Overloaded { what: "full" }), unavailable(1)),
    ] {
        assert_eq!(row(&Refusal::of_body(&error, 3)), expected, "{error}");
    }
}

#[test]
fn otlp_26_43_no_refusal_has_a_code_that_clients_retry_for_another_reason() {
    let exports = [
        ExportError::Undecodable(Undecodable::TooManyElements { cost_max: 1 }),
        ExportError::Undecodable(Undecodable::NeverFits { cost_max: 1 }),
        ExportError::AllRejected { message: String::new() },
        ExportError::Overloaded { what: "full" },
        ExportError::Starting,
        ExportError::Stopping,
        ExportError::Late,
        ExportError::DiskFull,
        ExportError::ReadOnly,
    ];
    let bodies = [
        BodyError::TooLarge { limit: 1 },
        BodyError::Inflate { coding: "gzip", why: String::new() },
        BodyError::ShortMessage,
        BodyError::BadTimeout,
        BodyError::UnsupportedCoding { coding: String::new() },
        BodyError::Incomplete,
        BodyError::Framing("flag"),
    ];
    let denied = [Denied::Missing, Denied::Unknown, Denied::Expired, Denied::WrongScope { needed: Scope::Query }];
    let refusals = (exports.iter().map(|error| Refusal::of_export(error, 0)))
        .chain(bodies.iter().map(|error| Refusal::of_body(error, 0)))
        .chain(denied.into_iter().map(Refusal::of_denied))
        .chain([Refusal::foreign_origin(), Refusal::panicked()]);
    for refusal in refusals {
        let retryable = refusal.code == Code::Unavailable;
        assert_eq!(retryable, refusal.retry_after_secs.is_some(), "{refusal:?}");
        assert_eq!(retryable, [429, 502, 503, 504].contains(&refusal.status.as_u16()), "{refusal:?}");
        let never =
            [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::DataLoss, Code::Unknown];
        assert!(!never.contains(&refusal.code), "{refusal:?}");
    }
}

#[test]
fn otlp_28_overload_spreads_the_clients_over_one_to_three_seconds() {
    let hint = |jitter| Refusal::of_export(&ExportError::Overloaded { what: "full" }, jitter).retry_after_secs;
    let hints: std::collections::BTreeSet<_> = (0..100).map(hint).collect();
    assert_eq!(hints.into_iter().collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[test]
fn otlp_30_a_message_is_cut_at_1_kib_on_a_character() {
    let long = ExportError::AllRejected { message: "\u{e9}".repeat(100_000) };
    let message = Refusal::of_export(&long, 0).message;
    assert!(message.len() <= ERROR_MESSAGE_BYTES_MAX && message.ends_with('\u{e9}'));
}
