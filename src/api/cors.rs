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
