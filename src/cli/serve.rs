//! `spandrel serve`: sockets first, then recovery, then work; stopped in the reverse order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::{consts, flag};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::access::Access;
use crate::api::listen::{Listeners, Tls};
use crate::api::{BodyLimits, Doors};
use crate::clock::Clock;
use crate::config::{Config, RawConfig};
use crate::feed::Feed;
use crate::ingest::{Ingest, Running};
use crate::journal::{Durability, RealDisk};
use crate::query::Query;
use crate::store::Store;
use crate::telemetry::Counters;

/// Connections that are still busy this long after the signal are dropped.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted; the system may allow fewer.
const LISTEN_BACKLOG: u32 = 4_096;

/// Flags of `serve`.
#[derive(clap::Args, Debug, Default)]
pub struct ServeArgs {
    /// Settings file (TOML); its keys are the long flags below without the dashes
    #[arg(long, env = "SPANDREL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    settings: RawConfig,
}

impl ServeArgs {
    /// Flags and environment over the file over the defaults.
    ///
    /// # Errors
    /// Names the setting and what would be right.
    pub fn resolve(&self) -> anyhow::Result<Config> {
        let file = self.config.as_deref().map(RawConfig::from_file).transpose()?.unwrap_or_default();
        Ok(self.settings.clone().or(file).resolve()?)
    }
}

/// A server that is up: its sockets answer, its store is open.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    ingest: Arc<Ingest>,
    running: Running,
    feed: Option<Feed>,
    /// Where it listens, also when port 0 was asked for.
    pub addresses: Addresses,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// Questions.
    pub http: SocketAddr,
    /// Zipkin v2, if it is switched on.
    pub zipkin: Option<SocketAddr>,
}

impl Server {
    /// Binds, answers "starting", recovers, opens the doors.
    ///
    /// # Errors
    /// A port that is taken, a directory that is in use or cannot be read.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let (clock, counters) = (Clock::system(), Arc::new(Counters::default()));
        let ingest = Arc::new(Ingest::new(config.ingest, Arc::new(RealDisk), clock.clone(), Arc::clone(&counters)));
        let query = Arc::new(Query::new(clock.clone(), Arc::clone(&counters)));
        let access = Access::open(&config.access, clock.clone()).context("the token file")?;
        let tls = config.tls.as_ref().map(Tls::open).transpose().context("TLS")?;
        let bodies =
            BodyLimits { bytes_max: config.body_bytes_max, stalls_within: config.connections.body_stalls_within };
        let doors = Doors::new(Arc::clone(&ingest), Arc::clone(&query), Arc::clone(&counters), access, bodies);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("spandrel-io")
            .enable_all()
            .build()
            .context("cannot start the async runtime")?;
        let (stop, stopped) = watch::channel(false);
        let ports = Listeners::new(config.connections, tls, Arc::clone(&counters));
        let mut listeners = Vec::new();
        let mut listen = |name: &'static str, address: SocketAddr, router| {
            let listener = runtime
                .block_on(async { bind(address) })
                .with_context(|| format!("cannot listen on {address} ({name}); is another process there?"))?;
            let bound = listener.local_addr()?;
            let (ports, stopped) = (ports.clone(), stopped.clone());
            listeners.push(runtime.spawn(async move { ports.serve(listener, router, stopped).await }));
            tracing::info!(name, address = %bound, "listening");
            anyhow::Ok(bound)
        };
        let otlp_grpc = listen("otlp-grpc", config.otlp_grpc, doors.otlp())?;
        // One address for both is one port for both.
        let otlp_http = if config.otlp_http == config.otlp_grpc && config.otlp_http.port() != 0 {
            otlp_grpc
        } else {
            listen("otlp-http", config.otlp_http, doors.otlp())?
        };
        let http = listen("http", config.http, doors.query())?;
        let zipkin = config.zipkin.map(|address| listen("zipkin", address, doors.zipkin())).transpose()?;
        let addresses = Addresses { otlp_grpc, otlp_http, http, zipkin };
        let data_dir = config.store.data_dir.clone();
        let store = Arc::new(Store::open(config.store, clock, counters)?);
        let running = ingest.start(&store)?;
        query.attach(store);
        let feed = config.remote_write.map(|settings| Feed::start(settings, &data_dir, query)).transpose()?;
        if ingest.durability() == Durability::Relaxed {
            tracing::warn!("durability is relaxed: a power cut loses what was acknowledged last");
        }
        tracing::info!("ready");
        Ok(Self { runtime, stop, listeners, ingest, running, feed, addresses })
    }

    /// Finishes the replies in flight, writes what is in memory into a block, and lets go of everything.
    pub fn stop(self) {
        let _receivers_gone = self.stop.send(true);
        self.runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + DRAIN_WITHIN;
            for listener in self.listeners {
                let _late_or_failed = tokio::time::timeout_at(deadline, listener).await;
            }
        });
        if let Some(feed) = self.feed {
            feed.stop();
        }
        self.ingest.stop(self.running);
        self.runtime.shutdown_timeout(Duration::from_millis(500));
        tracing::info!("stopped");
    }
}

/// A listener whose queue holds the reconnects of many exporters after a restart.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As after a restart: connections of the process before may still linger on the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// SIGINT and SIGTERM: they end a process that is starting at once, and one that is up when it says so.
///
/// To be had before the doors are open: it takes file descriptors, and clients may leave none.
#[derive(Debug)]
pub struct StopSignals {
    is_starting: Arc<AtomicBool>,
    signals: signal_hook::iterator::Signals,
}

impl StopSignals {
    /// Begins to watch.
    ///
    /// # Errors
    /// When signals cannot be watched.
    pub fn watch() -> std::io::Result<Self> {
        let (both, is_starting) = ([consts::SIGINT, consts::SIGTERM], Arc::new(AtomicBool::new(true)));
        for signal in both {
            let _for_ever = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_starting))?;
        }
        Ok(Self { is_starting, signals: signal_hook::iterator::Signals::new(both)? })
    }

    /// Waits for the first one, of a process that is up.
    pub fn wait(&mut self) {
        self.is_starting.store(false, Ordering::SeqCst);
        let signal = self.signals.forever().next();
        tracing::info!(signal, "stopping");
    }
}

/// Runs until a signal.
///
/// # Errors
/// As `Server::start`, and when signals cannot be watched.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let mut signals = StopSignals::watch()?;
    let server = Server::start(args.resolve()?)?;
    signals.wait();
    server.stop();
    Ok(())
}
