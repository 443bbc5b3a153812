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

/// Takes messages while the question is being answered.
pub(super) type Early = mpsc::Sender<Bytes>;

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
    early: mpsc::Receiver<Bytes>,
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
        if let Some(message) = self.ready.pop_front() {
            return Ok(Some(message));
        }
        let Some(work) = &mut self.work else { return Ok(None) };
        let last = tokio::select! {
            biased;
            Some(message) = self.early.recv() => return Ok(Some(message)),
            last = work => last,
        };
        self.work = None;
        let last = last?;
        // Sent between the two looks.
        while let Ok(message) = self.early.try_recv() {
            self.ready.push_back(message);
        }
        self.ready.extend(last.messages);
        if !last.coverage.is_complete()
            && let Ok(value) = HeaderValue::from_str(&last.coverage.reasons.join("; "))
        {
            let _none = self.trailers.insert("spandrel-coverage", value);
        }
        Ok(self.ready.pop_front())
    }
}
