//! The whole server, tested through its doors.

#![expect(clippy::indexing_slicing, reason = "a test may end by a panic")]
#![expect(clippy::disallowed_methods, reason = "a test reads its own settings and waits by the clock")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a test are small")]

mod access;
mod books;
mod conformance;
mod connections;
mod corpus;
mod crash;
mod crawl;
mod deaths;
mod deploy;
mod doors;
mod exact;
mod faults;
mod floods;
mod graph;
mod jaeger;
mod jump;
mod metrics;
mod model;
mod months;
mod native;
mod peel;
mod pins;
mod prometheus;
mod quantiles;
mod rank;
mod remnants;
mod remote_write;
mod search;
mod seeds;
mod streaming;
mod support;
mod tempo;
mod tempo_search;
mod two_services;
mod upkeep;
mod wire;
mod zipkin;
mod zipkin_query;
