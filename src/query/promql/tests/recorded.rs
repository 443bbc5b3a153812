//! Our answers beside those that a real Prometheus gave: `tests/promql/record.py` asked it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::super::labels::Labels;
use super::super::series::{Millis, Samples, Series};
use super::super::{Instants, PromError, PromQuery, PromValue};
use super::samples::Known;

const QUERIES: &str = include_str!("../../../../tests/promql/queries.txt");
const ANSWERS: &str = include_str!("../../../../tests/promql/answers.jsonl");
/// Sums in another order end in other bits.
const RELATIVE_ERROR_MAX: f64 = 1e-9;

/// A query, and by which name it is refused if we do not build it.
struct Asked {
    query: &'static str,
    unsupported: Option<&'static str>,
}

fn setting(name: &str) -> Millis {
    let value =
        QUERIES.lines().find_map(|line| line.strip_prefix("#= ")?.strip_prefix(name)?.trim().parse::<i64>().ok());
    value.expect("the head of the queries has it") * 1_000
}

fn queries() -> Vec<Asked> {
    let (mut asked, mut unsupported) = (Vec::new(), None);
    for line in QUERIES.lines().filter(|line| !line.is_empty()) {
        if let Some(what) = line.strip_prefix("#! unsupported: ") {
            unsupported = Some(what);
        } else if !line.starts_with('#') {
            asked.push(Asked { query: line, unsupported: unsupported.take() });
        }
    }
    asked
}

#[test]
fn answers_are_those_of_a_real_prometheus() {
    let source = Known::read();
    let answers: Vec<Value> = ANSWERS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers: HashMap<&str, &Value> =
        answers.iter().filter_map(|answer| Some((answer.get("query")?.as_str()?, answer))).collect();
    let range = Instants::Range { start: setting("start"), end: setting("end"), step: setting("step") };
    let instants = [("instant", Instants::Instant(setting("instant"))), ("range", range)];
    let asked = queries();
    assert!(300 <= asked.len(), "the queries are read");
    let mut failures = Vec::new();
    for Asked { query, unsupported } in &asked {
        let Some(answer) = answers.get(query) else {
            failures.push(format!("{query}\n    no answer is recorded: run tests/promql/record.py"));
            continue;
        };
        for (kind, instants) in instants {
            let ours = query.parse::<PromQuery>().and_then(|query| query.value(&source, instants));
            let difference = match unsupported {
                Some(name) => refused_as(name, &ours),
                None => difference(query, &ours, answer.get(kind).unwrap(), kind == "instant"),
            };
            failures.extend(difference.map(|difference| format!("{query}\n    {kind}: {difference}")));
        }
    }
    assert!(failures.is_empty(), "{} of {} answers differ:\n{}", failures.len(), 2 * asked.len(), failures.join("\n"));
}

fn refused_as(name: &str, ours: &Result<PromValue, PromError>) -> Option<String> {
    match ours {
        Err(PromError::Unsupported { what }) if what == name => None,
        other => Some(format!("not refused as {name}: {other:?}")),
    }
}

/// What is not the same.
fn difference(query: &str, ours: &Result<PromValue, PromError>, theirs: &Value, is_instant: bool) -> Option<String> {
    let ours = match (ours, theirs.get("error").and_then(Value::as_str)) {
        (Err(PromError::Parse { .. }), Some("bad_data")) | (Err(PromError::Execution(_)), Some("execution")) => {
            return None;
        }
        (Err(error), _) => return Some(format!("refused: {error}; not {theirs}")),
        (Ok(value), Some(kind)) => return Some(format!("no {kind} error but {value:?}")),
        (Ok(value), None) => value,
    };
    let is_same = match ours {
        PromValue::Text(text) => theirs.get("text").and_then(Value::as_str) == Some(text),
        PromValue::Scalar(numbers) if is_instant => {
            numbers.len() == 1 && number(theirs.get("scalar")?).is_some_and(|theirs| same(numbers[0], theirs))
        }
        PromValue::Scalar(numbers) => {
            let samples = Samples::Floats(numbers.iter().copied().map(Some).collect());
            return vectors(&[Series { labels: Labels::default(), samples }], theirs, false);
        }
        PromValue::Vector(series) => {
            let is_sorted = is_instant && ["sort", "topk(", "bottomk("].iter().any(|name| query.starts_with(name));
            return vectors(series, theirs, is_sorted);
        }
    };
    (!is_same).then(|| format!("{ours:?}, not {theirs}"))
}

type Values = Vec<Option<f64>>;

fn vectors(ours: &[Series], theirs: &Value, is_sorted: bool) -> Option<String> {
    let Some(theirs) = theirs.get("vector").and_then(Value::as_array) else {
        return Some(format!("series, not {theirs}"));
    };
    let values = |one: &Series| match &one.samples {
        Samples::Floats(values) => values.clone(),
        Samples::Histograms(_) | Samples::Buckets(_) => panic!("samples are numbers"),
    };
    let ours: Vec<(Labels, Values)> = ours.iter().map(|one| (one.labels.clone(), values(one))).collect();
    let theirs: Vec<(Labels, Values)> = theirs.iter().map(|one| series_of(one).unwrap()).collect();
    if is_sorted && !std::iter::zip(&ours, &theirs).all(|(ours, theirs)| all_same(&ours.1, &theirs.1)) {
        return Some(format!("in another order: {ours:?}, not {theirs:?}"));
    }
    let n = (ours.len(), theirs.len());
    let (mut ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (ours.into_iter().collect(), theirs.into_iter().collect());
    if n.0 != ours.len() {
        return Some("a series is there twice".to_owned());
    }
    let mut differ = Vec::new();
    for (labels, theirs) in theirs {
        match ours.remove(&labels) {
            Some(ours) if all_same(&ours, &theirs) => {}
            Some(ours) => {
                let pairs = std::iter::zip(&ours, &theirs).enumerate();
                let wrong = pairs
                    .filter(|(_, (ours, theirs))| !all_same(std::slice::from_ref(ours), std::slice::from_ref(theirs)));
                let wrong: Vec<_> =
                    wrong.map(|(at, (ours, theirs))| format!("{ours:?}, not {theirs:?}, at {at}")).collect();
                differ.push(format!("{}: {}", super::super::labels_text(&labels), wrong.join("; ")));
            }
            None => differ.push(format!("{} is missing", super::super::labels_text(&labels))),
        }
    }
    differ.extend(ours.into_keys().map(|labels| format!("{} is too much", super::super::labels_text(&labels))));
    (!differ.is_empty()).then(|| differ.join("\n             "))
}

/// `[{"job":"api"},"1"]`, or with a list of values and nulls.
fn series_of(one: &Value) -> Option<(Labels, Values)> {
    let labels = one.get(0)?.as_object()?.iter();
    let labels = Labels::of(labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
    let values = match one.get(1)? {
        Value::Array(values) => values.iter().map(number).collect(),
        value => vec![number(value)],
    };
    Some((labels, values))
}

fn number(value: &Value) -> Option<f64> {
    value.as_str().map(|text| text.parse().unwrap())
}

fn all_same(ours: &[Option<f64>], theirs: &[Option<f64>]) -> bool {
    let same = |(ours, theirs): (&Option<f64>, &Option<f64>)| match (ours, theirs) {
        (Some(ours), Some(theirs)) => same(*ours, *theirs),
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    };
    ours.len() == theirs.len() && std::iter::zip(ours, theirs).all(same)
}

#[expect(clippy::float_cmp, reason = "infinities are the same or not")]
fn same(ours: f64, theirs: f64) -> bool {
    let is_near = (ours - theirs).abs() <= RELATIVE_ERROR_MAX * ours.abs().max(theirs.abs());
    ours == theirs || ours.is_nan() && theirs.is_nan() || is_near && ours.is_finite() && theirs.is_finite()
}
