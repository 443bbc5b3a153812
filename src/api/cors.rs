//! Cross-origin requests: browsers may send spans from the pages that the settings name, and from no others.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

/// A browser asks again after this long.
const PREFLIGHT_SECS: &str = "7200";

/// Origins that are allowed; none by default, and then their header means nothing here.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(Vec<Pattern>);

/// `https://*.example.com`: the star stands for anything but a slash.
#[derive(Clone, Debug)]
struct Pattern {
    head: String,
    /// Behind the star.
    tail: Option<String>,
}

/// What the `Origin` of a request means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// No browser, or nothing is set: the request goes on as any other.
    Unasked,
    /// A question before the request: this is the answer.
    Answer(Response),
    /// The request goes on; its answer gets the headers of `allow`.
    Allow(HeaderValue),
    /// Not from there.
    Deny,
}

impl Origins {
    pub(super) fn new(patterns: &[String]) -> Self {
        let pattern = |text: &String| match text.split_once('*') {
            Some((head, tail)) => Pattern { head: head.to_owned(), tail: Some(tail.to_owned()) },
            None => Pattern { head: text.clone(), tail: None },
        };
        Self(patterns.iter().map(pattern).collect())
    }

    pub(super) fn verdict(&self, request: &Request) -> Verdict {
        let headers = request.headers();
        let Some(origin) = headers.get(header::ORIGIN).filter(|_| !self.0.is_empty()) else { return Verdict::Unasked };
        if !self.allows(origin.as_bytes()) {
            return Verdict::Deny;
        }
        if request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Verdict::Answer(preflight(headers, origin));
        }
        Verdict::Allow(origin.clone())
    }

    fn allows(&self, origin: &[u8]) -> bool {
        // Sandboxed frames and files call themselves "null": that is anybody.
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        origin != "null" && self.0.iter().any(|pattern| pattern.matches(origin))
    }
}

impl Pattern {
    fn matches(&self, origin: &str) -> bool {
        let Some(tail) = &self.tail else { return self.head == origin };
        let rest = origin.strip_prefix(self.head.as_str()).and_then(|rest| rest.strip_suffix(tail.as_str()));
        // A star alone stands for every origin, scheme included.
        let any = self.head.is_empty() && tail.is_empty();
        rest.is_some_and(|rest| !rest.is_empty() && (any || !rest.contains('/')))
    }
}

/// Whether a request that changes something is sent by a page that this server did not serve. Browsers say so with every such
/// request, and other clients do not.
///
/// A page can give its own name the address of this server and so look as if it were served here. Where a token is asked for
/// that gains nothing; elsewhere only addresses and `localhost` are taken for names of this server.
pub(super) fn is_foreign(request: &Request, asks_for_tokens: bool) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(axum::http::uri::Authority::as_str).or(host);
    let of_page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_scheme, host)| host);
    let Some(host) = host.filter(|host| Some(*host) == of_page) else { return true };
    !asks_for_tokens && !names_an_address(host)
}

/// An IP address or `localhost`, with or without a port.
fn names_an_address(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
    let name = name.map_or(host, |(name, _port)| name);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

/// No credentials are asked: browsers send none with it.
fn preflight(asked: &HeaderMap, origin: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow(&mut response, origin.clone());
    let headers = response.headers_mut();
    let _none = headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    let _none = headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECS));
    if let Some(fields) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let _none = headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
    }
    response
}

/// Lets the page read the answer, and how long to wait before it tries again.
pub(super) fn allow(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    let _none = headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let _none = headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    let _appended = headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_change_something_only_where_it_was_served() {
        let is_foreign = |origin: Option<&str>, host: &str, asks_for_tokens| {
            let request = Request::builder().method("POST").uri("/p").header("host", host);
            let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
            super::is_foreign(&request.body(Body::empty()).unwrap(), asks_for_tokens)
        };
        for (origin, host, without_tokens, with_tokens) in [
            (None, "127.0.0.1:3200", false, false),
            (Some("http://127.0.0.1:3200"), "127.0.0.1:3200", false, false),
            (Some("http://localhost:3200"), "localhost:3200", false, false),
            (Some("https://[::1]:3200"), "[::1]:3200", false, false),
            (Some("http://localhost:8080"), "localhost:3200", true, true),
            (Some("http://127.0.0.1:3200.evil"), "127.0.0.1:3200", true, true),
            (Some("null"), "127.0.0.1:3200", true, true),
            (Some(""), "127.0.0.1:3200", true, true),
            (Some("http://rebound.evil:3200"), "rebound.evil:3200", true, false),
            (Some("https://traces.example"), "traces.example", true, false),
        ] {
            assert_eq!(is_foreign(origin, host, false), without_tokens, "{origin:?} {host}");
            assert_eq!(is_foreign(origin, host, true), with_tokens, "{origin:?} {host}, with tokens");
        }
    }

    #[test]
    fn otlp_51_an_origin_is_allowed_by_its_name_or_a_star() {
        for (patterns, origin, allowed) in [
            (&["https://shop.example"][..], "https://shop.example", true),
            (&["https://shop.example"], "https://shop.example.evil", false),
            (&["https://shop.example"], "http://shop.example", false),
            (&["https://*.example"], "https://a.b.example", true),
            (&["https://*.example"], "https://.example", false),
            (&["https://*.example"], "https://evil/.example", false),
            (&["http://localhost:*"], "http://localhost:8080", true),
            (&["https://a", "https://b"], "https://b", true),
            (&["*"], "https://anything", true),
            (&["*"], "null", false),
        ] {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            assert_eq!(Origins::new(&patterns).allows(origin.as_bytes()), allowed, "{patterns:?} {origin}");
        }
    }
}
