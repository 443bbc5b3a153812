//! Connections: accepted under caps, over TLS where it is set, HTTP/1.1 or HTTP/2 by their first bytes, and closed when they
//! are of no more use.
//!
//! Ours rather than axum's listener, which has no time-outs, no caps, no TLS and no bound on HTTP/2 (docs/adr/0015).

mod activity;
mod caps;
mod connection;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::telemetry::Counters;

use caps::Caps;

pub use tls::{Tls, TlsError, TlsFiles};

/// After an error that is not about one connection (no file descriptors left) the listener waits this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Bounds of connections (OTLP conformance, section 5). Every value is legal; the defaults are those of the specification.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections of all ports together; one more is closed at once.
    pub connections_max: usize,
    /// ... of one address.
    pub connections_per_address_max: usize,
    /// Time for a TLS handshake.
    pub handshake_within: Duration,
    /// Time for the head of a request, from its first byte (HTTP/1).
    pub head_within: Duration,
    /// Time for the first request of a connection.
    pub first_request_within: Duration,
    /// HTTP/1 connections without a request for this long are closed; longer than clients keep theirs.
    pub idle_within: Duration,
    /// HTTP/2 peers that send nothing for this long are asked whether they are there ...
    pub ping_after: Duration,
    /// ... and closed without an answer in this time.
    pub pong_within: Duration,
    /// A client that takes no byte of its answer for this long is closed.
    pub reader_stalls_within: Duration,
    /// A request body is given up when it pauses for this long, or comes slower than 1 KiB/s after it.
    pub body_stalls_within: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_address_max: 256,
            handshake_within: Duration::from_secs(5),
            head_within: Duration::from_secs(10),
            first_request_within: Duration::from_mins(1),
            idle_within: Duration::from_mins(2),
            ping_after: Duration::from_mins(1),
            pong_within: Duration::from_secs(20),
            reader_stalls_within: Duration::from_mins(1),
            body_stalls_within: Duration::from_secs(10),
        }
    }
}

/// Where a request came from; in the extensions of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What all ports share.
#[derive(Clone, Debug)]
pub struct Listeners {
    limits: ConnectionLimits,
    caps: Caps,
    tls: Option<Arc<Tls>>,
    counters: Arc<Counters>,
}

impl Listeners {
    /// Ports that speak TLS when `tls` is given.
    pub fn new(limits: ConnectionLimits, tls: Option<Tls>, counters: Arc<Counters>) -> Self {
        let caps = Caps::new(limits.connections_max, limits.connections_per_address_max, Arc::clone(&counters));
        Self { limits, caps, tls: tls.map(Arc::new), counters }
    }

    /// Serves one port until `stopped` turns true; then no connection is accepted, and those that are open finish what is
    /// in flight. The caller bounds how long that may take.
    pub async fn serve(&self, listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _sender_gone = stopped.wait_for(|stopped| *stopped) => break,
            };
            while open.try_join_next().is_some() {}
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.accept_failed(&error).await;
                    continue;
                }
            };
            let Some(place) = self.caps.enter(peer.ip()) else { continue };
            let (this, router, stopped) = (self.clone(), router.clone(), stopped.clone());
            let _abort_handle = open.spawn(async move {
                this.one(stream, peer, router, stopped).await;
                drop(place);
            });
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// A client that is gone already costs nothing; without file descriptors, waiting lets others end.
    async fn accept_failed(&self, error: &std::io::Error) {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        self.counters.connections_refused.add("accept_failed", 1);
        tracing::warn!(%error, "cannot accept a connection; those that are open go on");
        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
    }

    async fn one(&self, stream: TcpStream, peer: SocketAddr, router: Router, stopped: watch::Receiver<bool>) {
        // Answers are small and complete: waiting for more to send would only delay them.
        let _unsupported = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return connection::serve(stream, peer, router, self, stopped).await;
        };
        match tokio::time::timeout(self.limits.handshake_within, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection::serve(stream, peer, router, self, stopped).await,
            Ok(Err(error)) => {
                self.counters.connections_refused.add("handshake_failed", 1);
                tracing::debug!(%peer, %error, "no TLS handshake");
            }
            Err(_elapsed) => self.counters.connections_refused.add("handshake_late", 1),
        }
    }
}
