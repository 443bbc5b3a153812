//! What a trace must have so that a query can find something in it: filters that look at one span each, and which of them
//! together. A scan of columns can tell that; whether the query does find something, only the whole trace can.

use super::super::Filter;
use super::super::ast::{Expression, Field, Literal};
use super::{Form, SpanQuery, Spans, Stage};

/// Filters in one query; a trace remembers which of them are met in bits.
pub const FILTERS_MAX: usize = 64;

/// Necessary conditions on a trace.
#[derive(Clone, Debug)]
pub struct Need {
    /// At most `FILTERS_MAX`, never none.
    filters: Vec<Filter>,
    formula: Formula,
}

#[derive(Clone, Debug)]
enum Formula {
    /// A span meets this filter.
    Met(u32),
    All(Vec<Formula>),
    Any(Vec<Formula>),
}

impl SpanQuery {
    /// What its traces must have.
    pub fn need(&self) -> Need {
        let mut filters = Vec::new();
        let formula = of_stages(&self.stages, &mut filters);
        Need { filters, formula }
    }
}

impl Need {
    /// Each about one span alone.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Whether a trace can be found of whose spans some meet these filters, by the bits of their positions.
    pub fn holds(&self, met: u64) -> bool {
        self.formula.holds(met)
    }
}

impl Formula {
    fn holds(&self, met: u64) -> bool {
        match self {
            Self::Met(filter) => met & 1_u64.checked_shl(*filter).unwrap_or(0) != 0,
            Self::All(parts) => parts.iter().all(|part| part.holds(met)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(met)),
        }
    }
}

/// What stages do between filters takes spans away, but adds none.
fn of_stages(stages: &[Stage], filters: &mut Vec<Filter>) -> Formula {
    let spans = stages.iter().filter_map(|stage| match stage {
        Stage::Spans(spans) => Some(of_spans(spans, filters)),
        Stage::By(_) | Stage::Coalesce | Stage::Having(_) | Stage::Select(_) => None,
    });
    Formula::All(spans.collect())
}

fn of_spans(spans: &Spans, filters: &mut Vec<Filter>) -> Formula {
    match spans {
        Spans::Filter(expression) => {
            let root = implied(expression).unwrap_or(Expression::Literal(Literal::Bool(true)));
            let known = filters.iter().position(|filter| filter.root == root);
            let at = known.unwrap_or_else(|| {
                filters.push(Filter { root });
                filters.len() - 1
            });
            Formula::Met(u32::try_from(at).unwrap_or(u32::MAX))
        }
        Spans::All(parts) => Formula::All(parts.iter().map(|part| of_spans(part, filters)).collect()),
        Spans::Any(parts) => Formula::Any(parts.iter().map(|part| of_spans(part, filters)).collect()),
        Spans::Related { form: Form::Negated, right, .. } => of_spans(right, filters),
        Spans::Related { left, right, .. } => Formula::All(vec![of_spans(left, filters), of_spans(right, filters)]),
        Spans::Pipeline(stages) => of_stages(stages, filters),
    }
}

/// The strongest condition that follows and looks at the span alone; `None` when that is none.
fn implied(expression: &Expression) -> Option<Expression> {
    match expression {
        Expression::All(parts) => {
            let mut parts: Vec<Expression> = parts.iter().filter_map(implied).collect();
            if parts.len() < 2 { parts.pop() } else { Some(Expression::All(parts)) }
        }
        Expression::Any(parts) => parts.iter().map(implied).collect::<Option<Vec<_>>>().map(Expression::Any),
        other => {
            let mut is_alone = true;
            other.fields(&mut |field: &Field| is_alone &= !field.is_of_trace());
            is_alone.then(|| other.clone())
        }
    }
}
