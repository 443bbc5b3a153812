//! One request, and what its answer means.

use std::io::Read as _;
use std::time::Duration;

use ureq::http::HeaderMap;

use crate::telemetry::with_causes;

use super::RemoteWrite;
use super::series::{Series, Value};
use super::wire::Form;

/// A request that takes longer failed.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// Of what a receiver says, so much is logged.
const REASON_BYTES_MAX: u64 = 1_024;

/// What a receiver says to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// It was, but by the receiver's own count less than was sent.
    TakenInPart(String),
    /// The receiver does not know the form.
    NotKnown(String),
    /// It would say the same again.
    Refused(String),
    /// Another time it may be taken.
    Failed(String),
}

/// How much a request brings, or a receiver of 2.0 wrote of it. Exemplars are not counted: a Prometheus that keeps none takes
/// the rest and says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    samples: u64,
    histograms: u64,
}

impl Amount {
    pub(super) fn of(series: &[Series<'_>]) -> Self {
        let mut amount = Self::default();
        for one in series {
            let n = 1 + u64::from(one.zero_at.is_some());
            match one.value {
                Value::Number(_) => amount.samples += n,
                Value::Native(_) => amount.histograms += n,
            }
        }
        amount
    }

    /// `None` when the receiver says nothing about it: then it is none of 2.0.
    fn written(headers: &HeaderMap) -> Option<Self> {
        let count = |of: &str| {
            let header = headers.get(format!("X-Prometheus-Remote-Write-{of}-Written"))?;
            Some(header.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
        };
        let counts = [count("Samples"), count("Histograms"), count("Exemplars")];
        let [samples, histograms, _] = counts;
        // One that is missing means 0.
        let amount = Self { samples: samples.unwrap_or(0), histograms: histograms.unwrap_or(0) };
        counts.iter().any(Option::is_some).then_some(amount)
    }

    fn text(self, sent: Self) -> String {
        let (samples, histograms) = (self.samples, self.histograms);
        format!("{samples} of {} samples and {histograms} of {} histograms were written", sent.samples, sent.histograms)
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    settings: RemoteWrite,
    agent: ureq::Agent,
}

impl Receiver {
    pub(super) fn new(settings: RemoteWrite) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_WITHIN)).http_status_as_error(false);
        // To follow a redirection may mean to GET what it leads to, which writes nothing and succeeds.
        let config = config.max_redirects(0);
        Self { settings, agent: config.build().into() }
    }

    pub(super) fn send(&self, form: Form, sent: Amount, body: &[u8]) -> Outcome {
        let mut request = self
            .agent
            .post(&self.settings.url)
            .header("Content-Type", form.content_type())
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", form.version())
            .header("User-Agent", concat!("spandrel/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.settings.token_file {
            match std::fs::read_to_string(path) {
                Ok(token) => request = request.header("Authorization", format!("Bearer {}", token.trim())),
                Err(error) => return Outcome::Failed(format!("{}: {error}", path.display())),
            }
        }
        match request.send(body) {
            Ok(mut response) => {
                let status = response.status();
                let written = Amount::written(response.headers());
                let mut said = Vec::new();
                // What can be read of it is good enough.
                let _in_part = response.body_mut().as_reader().take(REASON_BYTES_MAX).read_to_end(&mut said);
                let why = format!("{status}: {}", String::from_utf8_lossy(&said).trim());
                outcome(form, status.as_u16(), sent, written, why)
            }
            Err(error) => Outcome::Failed(with_causes(&error)),
        }
    }
}

fn outcome(form: Form, status: u16, sent: Amount, written: Option<Amount>, why: String) -> Outcome {
    match (form, status, written) {
        // Receivers of 1.0 refuse another form by 415 or 400, or do not look at it, find nothing in it and say that all is well.
        // One of 2.0 always says how much it wrote.
        (Form::Two, 415, _) | (Form::Two, 200..=299 | 400, None) => Outcome::NotKnown(why),
        (Form::Two, 200..=299, Some(written))
            if written.samples < sent.samples || written.histograms < sent.histograms =>
        {
            Outcome::TakenInPart(written.text(sent))
        }
        (_, 200..=299, _) => Outcome::Taken,
        (_, 429 | 500..=599, _) => Outcome::Failed(why),
        (Form::Two, _, Some(written)) => Outcome::Refused(format!("{why}; {}", written.text(sent))),
        (Form::One, ..) | (Form::Two, _, None) => Outcome::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Amount = Amount { samples: 3, histograms: 1 };

    #[track_caller]
    fn check(form: Form, status: u16, headers: &[(&'static str, &'static str)], expected: &Outcome) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let _none = map.insert(*name, value.parse().unwrap());
        }
        assert_eq!(outcome(form, status, SENT, Amount::written(&map), "why".to_owned()), *expected);
    }

    const ALL: [(&str, &str); 2] =
        [("x-prometheus-remote-write-samples-written", "3"), ("x-prometheus-remote-write-histograms-written", "1")];
    const FEW: [(&str, &str); 1] = [("x-prometheus-remote-write-samples-written", "2")];
    const NONE: [(&str, &str); 1] = [("x-prometheus-remote-write-exemplars-written", "0")];

    fn why(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn of_1_0_the_status_alone_decides() {
        for headers in [&ALL[..], &FEW, &[]] {
            check(Form::One, 204, headers, &Outcome::Taken);
            check(Form::One, 429, headers, &Outcome::Failed(why("why")));
            check(Form::One, 503, headers, &Outcome::Failed(why("why")));
            for status in [301, 400, 401, 404, 415] {
                check(Form::One, status, headers, &Outcome::Refused(why("why")));
            }
        }
    }

    #[test]
    fn a_receiver_of_2_0_is_one_that_says_how_much_it_wrote() {
        check(Form::Two, 204, &ALL, &Outcome::Taken);
        check(Form::Two, 204, &FEW, &Outcome::TakenInPart(why("2 of 3 samples and 0 of 1 histograms were written")));
        check(Form::Two, 204, &NONE, &Outcome::TakenInPart(why("0 of 3 samples and 0 of 1 histograms were written")));
        for status in [200, 204, 400, 415] {
            check(Form::Two, status, &[], &Outcome::NotKnown(why("why")));
        }
        check(Form::Two, 415, &NONE, &Outcome::NotKnown(why("why")));
    }

    #[test]
    fn what_fails_for_now_says_nothing_about_the_form() {
        for (status, headers) in [(429, &[][..]), (500, &[]), (503, &[]), (500, &NONE)] {
            check(Form::Two, status, headers, &Outcome::Failed(why("why")));
        }
        for status in [301, 401, 404] {
            check(Form::Two, status, &[], &Outcome::Refused(why("why")));
        }
    }

    #[test]
    fn a_partial_write_is_refused_and_says_how_much_was_written() {
        let few = "why; 2 of 3 samples and 0 of 1 histograms were written";
        check(Form::Two, 400, &FEW, &Outcome::Refused(why(few)));
    }
}
