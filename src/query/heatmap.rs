//! A service's latency over time as a matrix: a column for each step, a row for each band of latency, in each cell a count
//! and a few traces.

use crate::latency::{Band, Bucket, EXEMPLARS_PER_BAND_MAX, Exemplar, SlotLatency, keep_chosen};
use crate::model::{DurationNanos, TimeRange, UnixNanos};

use super::contributions::{Contributions, Sink};
use super::ids::{Ids, SpanIds, ids_of};
use super::selection::{Selection, SpansWanted, Target};
use super::steps::resolution_of;
use super::walk::{SlotAt, Slots};
use super::{Coverage, Query, QueryError, whole_slots};

/// Traces of a cell.
pub const CELL_EXEMPLARS_MAX: usize = EXEMPLARS_PER_BAND_MAX;
/// Columns of one answer; each has up to 128 rows.
pub const COLUMNS_MAX: u64 = 2_000;
/// Columns that are aimed at when no step is asked for.
const COLUMNS: u64 = 150;
/// Steps to choose from, in seconds.
const STEPS_SECS: [u64; 13] =
    [10, 30, 60, 120, 300, 600, 1_800, 3_600, 3 * 3_600, 6 * 3_600, 86_400, 7 * 86_400, 28 * 86_400];
/// Candidates of a cell after which three are chosen.
const CANDIDATES_MAX: usize = 32;

/// What is asked.
#[derive(Clone, Debug)]
pub struct HeatmapQuestion {
    /// `service.name`.
    pub service: String,
    /// `service.namespace`; `None` takes every namespace together.
    pub namespace: Option<String>,
    /// Which of its spans.
    pub spans: SpansWanted,
    /// By counting instant; widened to whole 10 s slots.
    pub range: TimeRange,
    /// Length of a column, a whole multiple of 10 s; `None` for one that gives about 150 columns.
    pub step: Option<DurationNanos>,
    /// Traces of a cell, up to `CELL_EXEMPLARS_MAX`.
    pub exemplars_max: usize,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct HeatmapAnswer {
    /// As asked.
    pub service: String,
    /// What was answered: whole slots.
    pub range: TimeRange,
    /// Length of a column.
    pub step: DurationNanos,
    /// Spans counted.
    pub count: u64,
    /// Non-empty columns in order: first instant, a whole multiple of the step, and the cells from the fastest on.
    pub columns: Vec<(UnixNanos, Vec<HeatmapCell>)>,
    /// What is missing.
    pub coverage: Coverage,
}

/// A cell that counts something.
#[derive(Clone, Debug)]
pub struct HeatmapCell {
    /// The latencies it counts: one of four equal steps of an octave.
    pub band: Band,
    /// Spans counted.
    pub count: u64,
    /// The slowest first.
    pub exemplars: Vec<SpanIds>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    count: u64,
    exemplars: Vec<Exemplar>,
}

/// The matrix while it is counted.
struct Matrix {
    step: u64,
    first: u64,
    /// By column, then by band.
    cells: Vec<Vec<Cell>>,
    exemplars_max: usize,
}

impl Matrix {
    fn new(step: DurationNanos, range: TimeRange, exemplars_max: usize) -> Self {
        let first = range.start.0 / step.0;
        let columns = usize::try_from(range.end.0.div_ceil(step.0).saturating_sub(first)).unwrap_or(0);
        Self { step: step.0, first, cells: vec![Vec::new(); columns], exemplars_max }
    }

    fn cell(&mut self, at: UnixNanos, bucket: Bucket) -> Option<&mut Cell> {
        let column = usize::try_from((at.0 / self.step).checked_sub(self.first)?).ok()?;
        let bands = self.cells.get_mut(column)?;
        if bands.is_empty() {
            bands.resize(Band::COUNT, Cell::default());
        }
        bands.get_mut(usize::from(bucket.band().index()))
    }

    fn add_exemplar(&mut self, at: UnixNanos, exemplar: Exemplar) {
        if self.exemplars_max == 0 {
            return;
        }
        let Some(cell) = self.cell(at, exemplar.bucket()) else { return };
        cell.exemplars.push(exemplar);
        if CANDIDATES_MAX < cell.exemplars.len() {
            keep_chosen(&mut cell.exemplars);
        }
    }
}

impl Sink for Matrix {
    fn slot(&mut self, target: Target<'_>, at: SlotAt, _is_error: bool, latency: &SlotLatency) {
        if !target.whole {
            return;
        }
        for (bucket, count) in latency.histogram.entries() {
            if let Some(cell) = self.cell(at.start, *bucket) {
                cell.count += count;
            }
        }
        for exemplar in &latency.exemplars {
            self.add_exemplar(at.start, *exemplar);
        }
    }

    fn span(&mut self, target: Target<'_>, at: UnixNanos, _is_error: bool, exemplar: Exemplar) {
        if let Some(cell) = self.cell(at, exemplar.bucket()).filter(|_| target.whole) {
            cell.count += 1;
            self.add_exemplar(at, exemplar);
        }
    }
}

impl Query {
    /// The matrix of a service. Cost: every slot of the window at the step's resolution, and two columns of the row groups
    /// that hold a trace of a cell.
    ///
    /// # Errors
    /// `Starting`, `UnknownService`, `EmptyWindow`, `BadStep`.
    pub fn heatmap(&self, question: &HeatmapQuestion) -> Result<HeatmapAnswer, QueryError> {
        let asked = question.range;
        if asked.end <= asked.start {
            return Err(QueryError::EmptyWindow { start: asked.start.0, end: asked.end.0 });
        }
        let step = question.step.unwrap_or_else(|| step_for(asked));
        let resolution = resolution_of(step, asked, COLUMNS_MAX)?;
        let range = whole_slots(asked);
        let snapshot = self.store()?.snapshot();
        let (service, namespace) = (question.service.clone(), question.namespace.clone());
        let selection = Selection { service, namespace, spans: question.spans, by: None };
        let mut matrix = Matrix::new(step, range, question.exemplars_max.min(CELL_EXEMPLARS_MAX));
        let slots = Slots::Of(resolution);
        let mut found = Contributions::collect(self, &snapshot, &selection, range, slots, &mut matrix)?;
        if !found.service_is_known {
            let nearest = self.nearest_services(&question.service)?;
            return Err(QueryError::UnknownService { service: question.service.clone(), nearest });
        }
        matrix.choose_exemplars();
        let chosen = matrix.cells.iter().flatten().flat_map(|cell| &cell.exemplars);
        let ids = ids_of(self, &found.places, chosen, &mut found.coverage);
        let count = matrix.cells.iter().flatten().map(|cell| cell.count).sum();
        let columns = matrix.into_columns(&ids);
        Ok(HeatmapAnswer { service: question.service.clone(), range, step, count, columns, coverage: found.coverage })
    }
}

impl Matrix {
    /// Of every cell, the slowest first.
    fn choose_exemplars(&mut self) {
        for cell in self.cells.iter_mut().flatten() {
            keep_chosen(&mut cell.exemplars);
            cell.exemplars.reverse();
            cell.exemplars.truncate(self.exemplars_max);
        }
    }

    fn into_columns(self, ids: &Ids) -> Vec<(UnixNanos, Vec<HeatmapCell>)> {
        let counted = |(band, cell): (u8, &Cell)| {
            let band = Band::from_index(band).filter(|_| 0 < cell.count)?;
            let exemplars = cell.exemplars.iter().filter_map(|one| ids.shown(one)).collect();
            Some(HeatmapCell { band, count: cell.count, exemplars })
        };
        let columns = (self.first..).zip(&self.cells).filter(|(_, cells)| !cells.is_empty());
        let column = |(number, cells): (u64, &Vec<Cell>)| {
            (UnixNanos(number * self.step), (0..).zip(cells).filter_map(counted).collect())
        };
        columns.map(column).collect()
    }
}

fn step_for(range: TimeRange) -> DurationNanos {
    let secs = (range.end.0 - range.start.0) / 1_000_000_000;
    let step = STEPS_SECS.into_iter().find(|step| secs / step <= COLUMNS);
    DurationNanos::from_secs(step.unwrap_or_else(|| (secs / COLUMNS).div_ceil(86_400) * 86_400))
}
