//! `/spandrel/v1/heatmap`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use crate::model::TimeRange;
use crate::query::{CELL_EXEMPLARS_MAX, HeatmapAnswer, HeatmapCell, HeatmapQuestion};

use super::answers::{CoverageJson, SpanIdsJson};
use super::percentile::{DEFAULT_START, service, spans};
use super::{DOOR, Doors, Failure};
use crate::api::params::Params;

#[derive(Debug, Serialize)]
pub(super) struct HeatmapJson {
    service: String,
    start_unix_nano: String,
    end_unix_nano: String,
    step_seconds: u64,
    count: u64,
    columns: Vec<ColumnJson>,
    coverage: CoverageJson,
}

#[derive(Debug, Serialize)]
struct ColumnJson {
    start_unix_nano: String,
    cells: Vec<CellJson>,
}

#[derive(Debug, Serialize)]
struct CellJson {
    low_ns: u64,
    high_ns: u64,
    count: u64,
    exemplars: Vec<SpanIdsJson>,
}

pub(super) async fn heatmap(State(doors): State<Doors>, uri: Uri) -> Result<Json<HeatmapJson>, Failure> {
    let params = Params::strict(&uri, &["service", "namespace", "spans", "start", "end", "step", "exemplars"])?;
    let now = doors.query.now();
    let question = HeatmapQuestion {
        service: service(&params)?,
        namespace: params.get("namespace").map(str::to_owned),
        spans: spans(&params)?,
        range: TimeRange { start: params.time("start", now, DEFAULT_START)?, end: params.time("end", now, "now")? },
        step: params.duration("step")?,
        exemplars_max: params.number("exemplars", CELL_EXEMPLARS_MAX, CELL_EXEMPLARS_MAX)?,
    };
    Ok(Json(doors.ask(DOOR, move |query| query.heatmap(&question)).await?.into()))
}

impl From<HeatmapAnswer> for HeatmapJson {
    fn from(answer: HeatmapAnswer) -> Self {
        let columns = answer.columns.into_iter().map(|(start, cells)| ColumnJson {
            start_unix_nano: start.0.to_string(),
            cells: cells.into_iter().map(CellJson::from).collect(),
        });
        Self {
            service: answer.service,
            start_unix_nano: answer.range.start.0.to_string(),
            end_unix_nano: answer.range.end.0.to_string(),
            step_seconds: answer.step.0 / 1_000_000_000,
            count: answer.count,
            columns: columns.collect(),
            coverage: answer.coverage.into(),
        }
    }
}

impl From<HeatmapCell> for CellJson {
    fn from(cell: HeatmapCell) -> Self {
        Self {
            low_ns: cell.band.low().0,
            high_ns: cell.band.high().0,
            count: cell.count,
            exemplars: cell.exemplars.into_iter().map(SpanIdsJson::from).collect(),
        }
    }
}
