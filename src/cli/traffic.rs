//! The shop's traffic: real OTLP over gRPC to a server's public port, in real time, on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::clock::{self, Clock};
use crate::model::DurationNanos;

use super::shop::{Grouping, Requests, Shop};

/// Traces are sent in bundles this far apart.
const TICK: Duration = Duration::from_millis(100);
/// The shop's visits are over by then: a span is exported after it ended.
const TRACE_AGE: DurationNanos = DurationNanos::from_secs(5);
/// Ticks between two flushes of requests that are not full.
const FLUSH_EVERY: u64 = 5;

/// What was acknowledged so far.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) traces: AtomicU64,
    pub(super) spans: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Traffic that runs until it is stopped.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) sent: Arc<Sent>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Traffic {
    pub(super) fn start(otlp_grpc: SocketAddr, seed: u64, traces_per_second: u32) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let sent = Arc::new(Sent::default());
        let counted = Arc::clone(&sent);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(otlp_grpc, seed, traces_per_second, &counted, stopped))
        };
        let thread = std::thread::Builder::new().name("spandrel-shop".to_owned()).spawn(run)?;
        Ok(Self { sent, stop, thread })
    }

    /// Sends what is waiting and ends. An error is why the traffic ended early.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        let _thread_gone = self.stop.send(true);
        self.thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the shop ended by a panic")))
    }
}

async fn run(
    otlp_grpc: SocketAddr,
    seed: u64,
    traces_per_second: u32,
    sent: &Sent,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let endpoint = format!("http://{otlp_grpc}");
    let mut client = TraceServiceClient::connect(endpoint).await.context("the shop cannot reach the server")?;
    let (mut shop, mut requests) = (Shop::new(seed), Requests::new(Grouping::Process));
    let (wall, began) = (Clock::system(), clock::instant());
    let mut ticks = tokio::time::interval(TICK);
    let mut made = 0;
    for tick in 1_u64.. {
        let _instant = tokio::select! {
            instant = ticks.tick() => instant,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let due = began.elapsed().as_secs_f64() * f64::from(traces_per_second);
        let mut full = Vec::new();
        while (made as f64) < due {
            full.extend(requests.add(shop.next_trace(wall.now().saturating_sub(TRACE_AGE))));
            made += 1;
        }
        if tick.is_multiple_of(FLUSH_EVERY) {
            full.extend(requests.flush());
        }
        for request in full {
            send(&mut client, request, sent).await?;
        }
        sent.traces.store(made, Ordering::Relaxed);
    }
    for request in requests.flush() {
        send(&mut client, request, sent).await?;
    }
    Ok(())
}

/// One request, repeated as a good exporter does while the server is busy.
async fn send(
    client: &mut TraceServiceClient<Channel>,
    request: ExportTraceServiceRequest,
    sent: &Sent,
) -> anyhow::Result<()> {
    let spans: usize = request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum();
    for attempt in 1..=10 {
        match client.export(request.clone()).await {
            Ok(_) => {
                let _before = sent.requests.fetch_add(1, Ordering::Relaxed);
                let _before = sent.spans.fetch_add(spans as u64, Ordering::Relaxed);
                return Ok(());
            }
            Err(status) if status.code() == tonic::Code::Unavailable && attempt < 10 => {
                let _before = sent.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200 * attempt)).await;
            }
            Err(status) => return Err(status).context("the server refused the shop's spans"),
        }
    }
    Ok(())
}
