//! What every request of a port passes before its handler: cross-origin rules, credentials, and a net under panics.
//!
//! Each refusal leaves in the form of its door, so the gate is told how to write one.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt as _;

use super::access::Scope;
use super::cors::{self, Verdict};
use super::refusal::Refusal;
use super::{Doors, prometheus, tempo};

/// How a port refuses.
pub(super) type Refuse = fn(&HeaderMap, &Refusal) -> Response;

/// One port's rules.
#[derive(Clone, Debug)]
struct Gate {
    doors: Doors,
    needed: Scope,
    /// Paths that need no credentials.
    open: &'static [&'static str],
    /// Whether web pages may send here. Where they may not, only questions are for everybody who may ask: what changes
    /// something needs the scope admin.
    for_pages: bool,
    refuse: Refuse,
}

/// Puts the gate of the ingest ports in front of `router`.
pub(super) fn of_ingest(router: Router<Doors>, doors: &Doors, refuse: Refuse) -> Router {
    let gate = Gate { doors: doors.clone(), needed: Scope::Ingest, open: &[], for_pages: true, refuse };
    router.with_state(doors.clone()).layer(from_fn_with_state(gate, pass))
}

/// Puts the gate of the query port in front of `router`.
pub(super) fn of_query(router: Router<Doors>, doors: &Doors, refuse: Refuse) -> Router {
    // Whoever restarts or routes to the process asks the first two, and has no token; the page asks for one.
    let open = &["/healthz", "/ready", "/", "/ui/app.js", "/ui/style.css"];
    let gate = Gate { doors: doors.clone(), needed: Scope::Query, open, for_pages: false, refuse };
    router.with_state(doors.clone()).layer(from_fn_with_state(gate, pass))
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let origins = &gate.doors.access.origins;
    let verdict = if gate.for_pages {
        origins.verdict(&request)
    } else if gate.changes(&request) && cors::is_foreign(&request, gate.doors.access.asks_for_tokens()) {
        return (gate.refuse)(request.headers(), &Refusal::foreign_page());
    } else {
        Verdict::Unasked
    };
    match verdict {
        Verdict::Answer(response) => response,
        Verdict::Deny => (gate.refuse)(request.headers(), &Refusal::foreign_origin()),
        Verdict::Unasked => gate.guarded(request, next).await,
        Verdict::Allow(origin) => {
            let mut response = gate.guarded(request, next).await;
            cors::allow(&mut response, origin);
            response
        }
    }
}

impl Gate {
    /// gRPC and Prometheus ask by POST, too.
    fn changes(&self, request: &Request) -> bool {
        let path = request.uri().path();
        !self.for_pages && !request.method().is_safe() && !tempo::only_asks(path) && !prometheus::only_asks(path)
    }

    async fn guarded(&self, request: Request, next: Next) -> Response {
        let is_open = self.open.contains(&request.uri().path());
        let needed = if self.changes(&request) { Scope::Admin } else { self.needed };
        if !is_open && let Err(denied) = self.doors.access.check(request.headers(), needed) {
            let refusal = Refusal::of_denied(denied);
            self.doors.counters.requests_denied.add(denied.code(), 1);
            return (self.refuse)(request.headers(), &refusal);
        }
        // Only what the form of a refusal depends on.
        let content_type = request.headers().get(axum::http::header::CONTENT_TYPE).cloned();
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_panic) => {
                tracing::error!("a request ended by a panic; please report it with the lines above");
                self.doors.counters.panics.add(1);
                let headers = content_type.map(|value| (axum::http::header::CONTENT_TYPE, value)).into_iter();
                (self.refuse)(&headers.collect(), &Refusal::panicked())
            }
        }
    }
}
