//! `spandrel demo`: a server, a shop that sends it spans through its public port, and the jump from the slowest
//! service's p99 to the trace that explains it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::clock::{self, Clock};
use crate::config::RawConfig;

use super::ask::{exemplar_of, exemplar_waterfall, style};
use super::client::{Client, Credentials};
use super::print;
use super::render::percentile_table;
use super::serve::{Addresses, Server};
use super::traffic::Traffic;
use super::view::{ExemplarView, PercentileView, ServicesView};

/// Progress is redrawn this often.
const REDRAW: Duration = Duration::from_millis(100);

/// Flags of `demo`.
#[derive(clap::Args, Debug)]
pub(super) struct DemoArgs {
    /// Exit after the first jump: 0 if it led from the p99 to its trace
    #[arg(long)]
    once: bool,
    /// The same seed makes the same shop, the same visits and the same faults; with a --data-dir of your own, take
    /// another one each time
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Visits to the shop per second, about 17 spans each
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// How long to send before the jump is shown
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    settings: RawConfig,
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let _id = signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // Fresh each time: the same seed makes the same trace ids, and an older run's spans would mix with them.
    let fresh = tempfile::Builder::new().prefix("spandrel-demo-").tempdir().context("cannot make a data directory")?;
    let own_data = RawConfig { data_dir: Some(fresh.path().to_path_buf()), ..RawConfig::default() };
    let config = args.settings.clone().or(own_data).resolve()?;
    if config.tls.is_some() || config.access.tokens.is_some() {
        anyhow::bail!("the demo's shop has no credentials: run it without tls and tokens, or use `spandrel serve`");
    }
    let server = Server::start(config)?;
    let outcome = play(args, &server.addresses, &stop);
    server.stop();
    outcome
}

fn play(args: &DemoArgs, addresses: &Addresses, stop: &AtomicBool) -> anyhow::Result<()> {
    let traffic = Traffic::start(addresses.otlp_grpc, args.seed, args.rate)?;
    let stopped_early = !show_progress(args.duration, &traffic, stop)?;
    let client = Client::new(&format!("http://{}", addresses.http), &Credentials::default())?;
    let jumped = if stopped_early { Ok(()) } else { jump(&client) };
    if !args.once && !stopped_early && jumped.is_ok() {
        print(&format!(
            "\nThe shop goes on; Ctrl-C ends it. OTLP: grpc {} http {}\n",
            addresses.otlp_grpc, addresses.otlp_http
        ))?;
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(REDRAW);
        }
    }
    traffic.stop().and(jumped)
}

/// `false` when a signal came first.
fn show_progress(duration: Duration, traffic: &Traffic, stop: &AtomicBool) -> anyhow::Result<bool> {
    let began = clock::instant();
    let bar = ProgressBar::new(u64::try_from(duration.as_millis())?);
    bar.set_style(ProgressStyle::with_template("the shop is open {bar:30} {msg}")?);
    while began.elapsed() < duration {
        if stop.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Ok(false);
        }
        let count = |counter: &std::sync::atomic::AtomicU64| HumanCount(counter.load(Ordering::Relaxed));
        let (visits, spans) = (count(&traffic.sent.traces), count(&traffic.sent.spans));
        bar.set_message(format!("{visits} visits, {spans} spans acknowledged"));
        bar.set_position(u64::try_from(began.elapsed().as_millis())?);
        std::thread::park_timeout(REDRAW);
    }
    let (spans, requests) = (&traffic.sent.spans, &traffic.sent.requests);
    let (spans, requests) = (spans.load(Ordering::Relaxed), requests.load(Ordering::Relaxed));
    bar.finish_and_clear();
    print(&format!(
        "{} spans in {} requests acknowledged, each on disk before its answer.\n",
        HumanCount(spans),
        HumanCount(requests)
    ))?;
    Ok(true)
}

/// From the slowest service's p99 to its trace, checked on the way.
fn jump(client: &Client) -> anyhow::Result<()> {
    let view = slowest_service(client)?;
    print(&format!("\nThe slowest service by p99:\n{}", percentile_table(&view, Clock::system().now(), style())))?;
    let exemplar = exemplar_of(&view, 0.99).context("the p99 has no exemplar")?;
    ensure!(exemplar.in_bucket, "the exemplar {} is not in the bucket of the p99", exemplar.trace_id);
    print(&format!("\nOne of the traces in that p99's bucket:\n{}", exemplar_waterfall(client, exemplar)?))?;
    check_that_it_opens(client, exemplar)?;
    let (service, trace) = (&view.service, &exemplar.trace_id);
    print(&format!(
        "\nOpen it:      {}\nIn Grafana:   a Tempo data source with URL {}\nAsk again:    spandrel p99 {service}\n              spandrel trace {trace}\n",
        client.url(&format!("/#/trace/{trace}/{}", exemplar.span_id)),
        client.url(""),
    ))
}

fn slowest_service(client: &Client) -> anyhow::Result<PercentileView> {
    let services: ServicesView = serde_json::from_str(&client.get("/spandrel/v1/services", &[])?)?;
    let mut slowest: Option<(u64, &str)> = None;
    for service in &services.services {
        let view = percentiles(client, &service.name, "0.99")?;
        let p99 = view.quantiles.first().and_then(|row| row.value_ns);
        if let Some(p99) = p99
            && slowest.as_ref().is_none_or(|(known, _)| *known < p99)
        {
            slowest = Some((p99, &service.name));
        }
    }
    let Some((_, service)) = slowest else { bail!("no service has a latency yet") };
    percentiles(client, service, "0.5,0.9,0.99,0.999,1")
}

fn percentiles(client: &Client, service: &str, q: &str) -> anyhow::Result<PercentileView> {
    Ok(serde_json::from_str(&client.get("/spandrel/v1/percentile", &[("service", service), ("q", q)])?)?)
}

fn check_that_it_opens(client: &Client, exemplar: &ExemplarView) -> anyhow::Result<()> {
    let native = client.get(&format!("/spandrel/v1/traces/{}", exemplar.trace_id), &[])?;
    ensure!(native.contains(&exemplar.span_id), "span {} is not in its trace", exemplar.span_id);
    let tempo = client.get(&format!("/api/v2/traces/{}", exemplar.trace_id), &[])?;
    ensure!(tempo.contains("resourceSpans"), "trace {} does not open in the Tempo API", exemplar.trace_id);
    Ok(())
}
