//! `/spandrel/v1/graph`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use crate::model::TimeRange;
use crate::query::{Edge, GraphAnswer, GraphQuestion};

use super::answers::{CountedJson, CoverageJson, SpanIdsJson};
use super::percentile::{DEFAULT_START, EXEMPLARS_MAX, quantiles};
use super::{DOOR, Doors, Failure};
use crate::api::params::Params;

const QUANTILES: &str = "0.5,0.95,0.99";

#[derive(Debug, Serialize)]
pub(super) struct GraphJson {
    start_unix_nano: String,
    end_unix_nano: String,
    edges: Vec<EdgeJson>,
    coverage: CoverageJson,
}

/// The names of `traces_service_graph_*`, so that both can be joined.
#[derive(Debug, Serialize)]
struct EdgeJson {
    client: String,
    client_service_namespace: String,
    server: String,
    server_service_namespace: String,
    connection_type: &'static str,
    #[serde(rename = "server_side")]
    as_server: CountedJson,
    #[serde(rename = "client_side")]
    as_client: CountedJson,
    exemplars: Vec<SpanIdsJson>,
}

pub(super) async fn graph(State(doors): State<Doors>, uri: Uri) -> Result<Json<GraphJson>, Failure> {
    let params = Params::strict(&uri, &["service", "q", "start", "end", "exemplars"])?;
    let now = doors.query.now();
    let question = GraphQuestion {
        range: TimeRange { start: params.time("start", now, DEFAULT_START)?, end: params.time("end", now, "now")? },
        service: params.get("service").map(str::to_owned),
        quantiles: quantiles(params.get("q").unwrap_or(QUANTILES))?,
        exemplars_max: params.number("exemplars", 1, EXEMPLARS_MAX)?,
    };
    Ok(Json(doors.ask(DOOR, move |query| query.graph(&question)).await?.into()))
}

impl From<GraphAnswer> for GraphJson {
    fn from(answer: GraphAnswer) -> Self {
        let secs = answer.range.end.0.saturating_sub(answer.range.start.0) as f64 / 1e9;
        Self {
            start_unix_nano: answer.range.start.0.to_string(),
            end_unix_nano: answer.range.end.0.to_string(),
            edges: answer.edges.into_iter().map(|edge| EdgeJson::new(edge, secs)).collect(),
            coverage: answer.coverage.into(),
        }
    }
}

impl EdgeJson {
    fn new(edge: Edge, secs: f64) -> Self {
        Self {
            client: edge.ends.client,
            client_service_namespace: edge.ends.client_namespace,
            server: edge.ends.server,
            server_service_namespace: edge.ends.server_namespace,
            connection_type: edge.ends.connection.as_str(),
            as_server: CountedJson::new(edge.server, secs),
            as_client: CountedJson::new(edge.client, secs),
            exemplars: edge.exemplars.into_iter().map(SpanIdsJson::from).collect(),
        }
    }
}
