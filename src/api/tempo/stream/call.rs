//! One call: its message, the messages of its answer as they come, its end in the trailers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::api::body::Coding;
use crate::api::inflate::{InflateError, Inflating};
use crate::api::refusal::{BodyError, Refusal};
use crate::api::{Doors, grpc, text};
use crate::query::Coverage;

/// Bytes of a question, inflated or not: as many as the head of an HTTP request may have.
const QUESTION_BYTES_MAX: usize = 16 * 1024;
/// Messages that wait for the client while the question goes on.
const EARLY_MAX: usize = 2;

/// Takes messages while the question is being answered, several at once.
pub(super) type Early = mpsc::Sender<Vec<Bytes>>;

/// A question being answered.
type Work = Pin<Box<dyn Future<Output = Result<Last, Refusal>> + Send>>;

/// What comes at the end of an answer.
#[derive(Debug)]
pub(super) struct Last {
    /// With their five bytes in front.
    pub(super) messages: Vec<Bytes>,
    /// What is missing of the whole answer: said in the trailers, as HTTP says it in a header.
    pub(super) coverage: Coverage,
}

/// Answers a call by `work`. When the client goes away, or its deadline passes, `work` is dropped, and with it its question.
pub(super) async fn call<Asked, Answering>(
    doors: Doors,
    request: Request,
    work: impl FnOnce(Doors, Asked, Early) -> Answering + Send + 'static,
) -> Response
where
    Asked: Message + Default + Send + 'static,
    Answering: Future<Output = Result<Last, Refusal>> + Send + 'static,
{
    if !grpc::is_grpc(request.headers()) {
        return not_grpc().await;
    }
    let deadline = match grpc::deadline(request.headers()) {
        Ok(deadline) => deadline,
        Err(error) => return grpc::failure(&Refusal::of_body(&error, 0)),
    };
    let (early, received) = mpsc::channel(EARLY_MAX);
    let work = async move {
        let asked = ask(&doors, request).await.map_err(|error| Refusal::of_body(&error, 0))?;
        work(doors, asked, early).await
    };
    let work = async move {
        match deadline {
            None => work.await,
            Some(within) => tokio::time::timeout(within, work).await.unwrap_or_else(|_| Err(Refusal::late())),
        }
    };
    let answer =
        Answer { work: Some(Box::pin(work)), early: received, ready: VecDeque::new(), trailers: grpc::success() };
    answer.respond().await.unwrap_or_else(|refusal| grpc::failure(&refusal))
}

/// Whoever asks so does not read gRPC.
pub(super) async fn not_grpc() -> Response {
    text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this path speaks gRPC (POST with content-type application/grpc)\n")
}

/// The one message that the client sends. It is as small as a URL, and like that needs no permit.
async fn ask<Asked: Message + Default>(doors: &Doors, request: Request) -> Result<Asked, BodyError> {
    let too_long = || BodyError::LongQuestion { limit: QUESTION_BYTES_MAX };
    let (parts, mut body) = request.into_parts();
    let coding = grpc::coding(&parts.headers)?;
    let mut framed = Vec::new();
    while let Some(frame) =
        tokio::time::timeout(doors.body_stalls_within, body.frame()).await.map_err(|_| BodyError::Incomplete)?
    {
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        let Ok(data) = frame.into_data() else { continue };
        if QUESTION_BYTES_MAX < framed.len() + data.len() {
            return Err(too_long());
        }
        framed.extend_from_slice(&data);
    }
    let (message, coding) = grpc::unframed(framed, coding)?;
    let message = match coding {
        Coding::Compressed(compression) if !message.is_empty() => {
            let failed = |error: InflateError| match error {
                InflateError::TooLarge { .. } => too_long(),
                InflateError::Damaged(error) => {
                    BodyError::Inflate { coding: compression.name(), why: error.to_string() }
                }
            };
            let mut inflating = Inflating::new(message, compression, QUESTION_BYTES_MAX).map_err(failed)?;
            while inflating.step().map_err(failed)? {}
            inflating.into_inflated()
        }
        Coding::Identity | Coding::Compressed(_) => message,
    };
    Ok(Asked::decode(message.as_slice())?)
}

/// An answer on its way.
struct Answer {
    /// Until it has ended.
    work: Option<Work>,
    early: mpsc::Receiver<Vec<Bytes>>,
    ready: VecDeque<Bytes>,
    trailers: HeaderMap,
}

impl Answer {
    /// Waits for the first message: until then there may be a refusal, which some clients find in the headers alone.
    async fn respond(mut self) -> Result<Response, Refusal> {
        let first = self.next().await?;
        let (ended, end) = oneshot::channel();
        let rest = stream::unfold((self, ended), |(mut answer, ended)| async move {
            let trailers = match answer.next().await {
                Ok(Some(message)) => return Some((message, (answer, ended))),
                Ok(None) => answer.trailers,
                Err(refusal) => grpc::broken_off(&refusal),
            };
            let _client_gone = ended.send(trailers);
            None
        });
        let messages = stream::iter(first).chain(rest).map(Ok::<_, Infallible>);
        let trailers = async move { end.await.ok().map(Ok) };
        Ok(grpc::answer(Body::new(Body::from_stream(messages).with_trailers(trailers))))
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while self.ready.is_empty()
            && let Some(work) = &mut self.work
        {
            tokio::select! {
                biased;
                Some(messages) = self.early.recv() => self.ready.extend(messages),
                last = work => self.end(last?),
            }
        }
        Ok(self.ready.pop_front())
    }

    fn end(&mut self, last: Last) {
        self.work = None;
        // Sent between the two looks.
        while let Ok(messages) = self.early.try_recv() {
            self.ready.extend(messages);
        }
        self.ready.extend(last.messages);
        if !last.coverage.is_complete()
            && let Ok(value) = HeaderValue::from_str(&last.coverage.reasons.join("; "))
        {
            let _none = self.trailers.insert("spandrel-coverage", value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages, and status and coverage of the trailers.
    async fn answered(
        last: Result<Last, Refusal>,
        early: &[&[&'static str]],
    ) -> Result<(String, [String; 2]), Refusal> {
        let (sender, received) = mpsc::channel(EARLY_MAX);
        let early: Vec<Vec<Bytes>> = early
            .iter()
            .map(|messages| messages.iter().map(|text| Bytes::from_static(text.as_bytes())).collect())
            .collect();
        let work = Box::pin(async move {
            for messages in early {
                sender.send(messages).await.unwrap();
                tokio::task::yield_now().await;
            }
            last
        });
        let ready = VecDeque::new();
        let answer = Answer { work: Some(work), early: received, ready, trailers: grpc::success() };
        let body = answer.respond().await?.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap();
        let trailer = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let told = [trailer("grpc-status"), trailer("spandrel-coverage")];
        Ok((String::from_utf8(body.to_bytes().to_vec()).unwrap(), told))
    }

    fn last(message: &'static str, missing: &str) -> Last {
        let reasons = Some(missing.to_owned()).filter(|missing| !missing.is_empty()).into_iter().collect();
        Last { messages: vec![Bytes::from_static(message.as_bytes())], coverage: Coverage { reasons } }
    }

    #[tokio::test]
    async fn messages_come_in_the_order_in_which_they_were_sent_and_the_trailers_behind_them() {
        let told = |status: &str, coverage: &str| [status.to_owned(), coverage.to_owned()];
        let whole = |text: &str| Ok((text.to_owned(), told("0", "")));
        assert_eq!(answered(Ok(last("z", "")), &[]).await, whole("z"));
        assert_eq!(answered(Ok(last("z", "")), &[&["a"], &[], &["b", "c"], &["d"]]).await, whole("abcdz"));
        assert_eq!(answered(Ok(last("z", "a block")), &[&["a"]]).await, Ok(("az".to_owned(), told("0", "a block"))));
    }

    #[tokio::test]
    async fn a_refusal_stands_in_the_headers_unless_a_message_has_left() {
        let refusal = || Refusal::invalid(&"no");
        assert_eq!(answered(Err(refusal()), &[]).await, Err(refusal()));
        assert_eq!(answered(Err(refusal()), &[&[]]).await, Err(refusal()));
        assert_eq!(answered(Err(refusal()), &[&["a"]]).await, Ok(("a".to_owned(), ["3".to_owned(), String::new()])));
    }

    #[tokio::test]
    async fn the_question_ends_with_its_client() {
        let (sender, received) = mpsc::channel(EARLY_MAX);
        let asker = sender.clone();
        let work = Box::pin(async move {
            sender.send(vec![Bytes::from_static(b"a")]).await.unwrap();
            std::future::pending().await
        });
        let answer = Answer { work: Some(work), early: received, ready: VecDeque::new(), trailers: grpc::success() };
        let response = answer.respond().await.unwrap();
        assert!(!asker.is_closed());
        drop(response);
        assert!(asker.is_closed(), "the work is dropped with the answer");
        asker.closed().await;
    }
}
