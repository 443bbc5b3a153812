//! One connection, from its first byte to its last.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::activity::{Activity, Verdict};
use super::{ConnectionLimits, Listeners, Peer};

/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 200;
/// Bytes that a stream may send ahead of being read, and all streams of a connection. No permit covers them; a request that
/// waits for its permit must not fill the window of all the others.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of it.
const HEAD_FIELDS_MAX: usize = 100;
/// HTTP/1 reads ahead so far. Above `HEAD_BYTES_MAX`, so that a large head is refused by its size and not by its buffer.
const READ_AHEAD_BYTES_MAX: usize = 128 * 1024;
/// A connection that was told goodbye may finish for this long.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    listeners: &Listeners,
    mut stopped: watch::Receiver<bool>,
) {
    let limits = &listeners.limits;
    let activity = Arc::new(Activity::new());
    let service = {
        let activity = Arc::clone(&activity);
        service_fn(move |request: hyper::Request<Incoming>| {
            activity.request_began();
            answer(request, peer, router.clone(), InFlight(Arc::clone(&activity)))
        })
    };
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
    let builder = builder(limits);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut look = pin!(tokio::time::sleep_until(Instant::from_std(activity.began()) + limits.head_within));
    let mut goodbye = pin!(async move {
        let _sender_gone = stopped.wait_for(|stopped| *stopped).await;
    });
    let mut leaving = false;
    loop {
        tokio::select! {
            _ended = connection.as_mut() => return,
            () = goodbye.as_mut(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.sooner() => look.as_mut().reset(Instant::now()),
            () = look.as_mut() => match activity.verdict(limits) {
                Verdict::Keep { until } => look.as_mut().reset(Instant::from_std(activity.began()) + until),
                Verdict::Goodbye if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + GOODBYE_WITHIN);
                }
                Verdict::Goodbye => return,
                Verdict::Close { reason } => return listeners.counters.connections_timed_out.add(reason, 1),
            },
        }
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // hyper's own time-out for heads runs while a connection is idle, too: `Activity` tells the two apart.
    let _http1 = builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(HEAD_FIELDS_MAX)
        .max_buf_size(READ_AHEAD_BYTES_MAX)
        .half_close(false);
    // The guards against floods (resets, CONTINUATION, empty frames) are hyper's and h2's own, left as they are.
    let _http2 = builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.ping_after)
        .keep_alive_timeout(limits.pong_within);
    builder
}

/// The router's answer, which counts as in flight until its last byte is handed over.
async fn answer(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    router: Router,
    in_flight: InFlight,
) -> Result<Response, std::convert::Infallible> {
    let mut request: Request = request.map(Body::new);
    let fields = request.headers().iter();
    let head_bytes: usize = fields.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let response = if HEAD_BYTES_MAX < head_bytes + request.uri().path().len() {
        super::super::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of a request has 16 KiB at most\n")
    } else {
        let _none = request.extensions_mut().insert(Peer(peer));
        TowerToHyperService::new(router).call(request).await?
    };
    Ok(response.map(|body| Body::new(Answer { body, _in_flight: in_flight })))
}

/// A request that is being answered.
#[derive(Debug)]
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// The body of an answer.
#[derive(Debug)]
struct Answer {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that notes when bytes move.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.activity.read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn noted<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.activity.wrote(polled.is_ready());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.noted(polled)
    }
}
