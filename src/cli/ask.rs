//! `spandrel p99`, `search`, `trace`, `services`: a question to a running server, answered for eyes or, with `--json`, for scripts.

use std::io::IsTerminal as _;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config;

use super::client::{Client, Credentials};
use super::print;
use super::render::{Style, graph_table, percentile_table, search_table, services_table, waterfall};
use super::view::{ExemplarView, GraphView, PercentileView, SearchView, ServicesView, TraceView};

/// Width when stdout is no terminal.
const WIDTH: usize = 120;

/// Where the server is, and for whom the answer is.
#[derive(clap::Args, Debug)]
pub(super) struct ServerArgs {
    /// Server to ask
    #[arg(long, env = "SPANDREL_URL", default_value = "http://127.0.0.1:3200", value_name = "URL")]
    url: String,
    /// Print the server's JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    credentials: Credentials,
}

impl ServerArgs {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.url, &self.credentials)
    }
}

/// Flags of `p99`.
#[derive(clap::Args, Debug)]
pub(super) struct PercentileArgs {
    /// `service.name`
    service: String,
    /// Quantiles, from 0 (the fastest span) to 1 (the slowest)
    #[arg(long, default_value = "0.5,0.9,0.99,0.999,1", value_name = "LIST")]
    q: String,
    /// Window that ends now
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    last: String,
    /// Only this `service.namespace`
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Split by an attribute, name, kind or status, or by `peel`: all places where spans run, the slowest first
    #[arg(long, value_name = "FIELD")]
    by: Option<String>,
    /// Only spans for which this is true, in TraceQL: 'span.http.route = "/pay" && status = error'
    #[arg(long = "where", value_name = "TRACEQL")]
    filter: Option<String>,
    /// Groups shown with --by
    #[arg(long, default_value = "10", value_name = "N")]
    top: String,
    /// Compare with the window so long before, such as 1d
    #[arg(long, value_name = "DURATION")]
    vs: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `graph`.
#[derive(clap::Args, Debug)]
pub(super) struct GraphArgs {
    /// Only calls from or to this `service.name`
    service: Option<String>,
    /// Window that ends now
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    last: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `trace`.
#[derive(clap::Args, Debug)]
pub(super) struct TraceArgs {
    /// Trace id: 1 to 32 hex digits
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `search`.
#[derive(clap::Args, Debug)]
pub(super) struct SearchArgs {
    /// What a span of the trace has to be, in TraceQL: '{ resource.service.name = "cart" && duration > 2s }'
    #[arg(default_value = "{ }")]
    traceql: String,
    /// Window that ends now; spans that start in it are looked at
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    last: String,
    /// Traces shown, the newest
    #[arg(long, default_value = "20", value_name = "N")]
    limit: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `services`.
#[derive(clap::Args, Debug)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn percentile(args: &PercentileArgs) -> anyhow::Result<()> {
    let client = args.server.client()?;
    let start = format!("-{}", args.last);
    let mut query = vec![("service", args.service.as_str()), ("q", &args.q), ("start", &start)];
    let vs = args.vs.as_ref().map(|back| format!("-{back}"));
    let optional = [
        ("namespace", args.namespace.as_deref()),
        ("by", args.by.as_deref()),
        ("where", args.filter.as_deref()),
        ("top", args.by.is_some().then_some(args.top.as_str())),
        ("vs", vs.as_deref()),
    ];
    query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let json = client.get("/spandrel/v1/percentile", &query)?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: PercentileView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    print(&percentile_table(&view, Clock::system().now(), style()))?;
    match exemplar_of(&view, 0.99) {
        Some(exemplar) => print(&format!("\n{}", exemplar_waterfall(&client, exemplar)?)),
        None => print("no spans in this window; try a longer --last\n"),
    }
}

pub(super) fn graph(args: &GraphArgs) -> anyhow::Result<()> {
    let start = format!("-{}", args.last);
    let mut query = vec![("start", start.as_str())];
    query.extend(args.service.as_deref().map(|service| ("service", service)));
    let json = args.server.client()?.get("/spandrel/v1/graph", &query)?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: GraphView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    print(&graph_table(&view, style()))
}

pub(super) fn trace(args: &TraceArgs) -> anyhow::Result<()> {
    let json = args.server.client()?.get(&format!("/spandrel/v1/traces/{}", args.id), &[])?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    print(&waterfall(&TraceView::from_otlp_json(&json)?, width(), style()))
}

pub(super) fn search(args: &SearchArgs) -> anyhow::Result<()> {
    let start = format!("-{}", args.last);
    let query = [("q", args.traceql.as_str()), ("start", &start), ("end", "now"), ("limit", &args.limit)];
    let json = args.server.client()?.get("/api/search", &query)?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: SearchView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    print(&search_table(&view, Clock::system().now(), style()))
}

pub(super) fn services(args: &ServicesArgs) -> anyhow::Result<()> {
    let json = args.server.client()?.get("/spandrel/v1/services", &[])?;
    if args.server.json {
        return print(&(json + "\n"));
    }
    let view: ServicesView = serde_json::from_str(&json).context("the answer is not of the shape expected")?;
    print(&services_table(&view, Clock::system().now(), style()))
}

/// The best exemplar of the quantile closest to `wanted`.
pub(super) fn exemplar_of(view: &PercentileView, wanted: f64) -> Option<&ExemplarView> {
    let distance = |q: f64| (q - wanted).abs();
    let closest = view.quantiles.iter().min_by(|a, b| distance(a.q).total_cmp(&distance(b.q)))?;
    closest.exemplars.first()
}

/// The exemplar's whole trace, its span marked.
pub(super) fn exemplar_waterfall(client: &Client, exemplar: &ExemplarView) -> anyhow::Result<String> {
    let json = client.get(&format!("/spandrel/v1/traces/{}", exemplar.trace_id), &[])?;
    let mut trace = TraceView::from_otlp_json(&json)?;
    trace.highlight = Some(exemplar.span_id.clone());
    Ok(waterfall(&trace, width(), style()))
}

/// Colours only where somebody sees them.
pub(super) fn style() -> Style {
    Style { color: config::color_is_welcome() && std::io::stdout().is_terminal(), ascii: false }
}

/// Columns of the terminal.
pub(super) fn width() -> usize {
    terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0))
}
