//! What queries find in whole traces: a list of them on fixed traces, and random ones on random traces against an evaluator
//! of plain structs that knows nothing of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use expect_test::expect_file;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span::Event};
use prost::Message as _;

use super::random::Dice;
use crate::model::SpanBatch;
use crate::otlp::DecodeOptions;
use crate::query::traceql::{SpanQuery, TraceSpans};

const SECOND: u64 = 1_000_000_000;

/// A span as a test writes it.
#[derive(Clone, Debug, Default)]
struct Plain {
    name: String,
    /// Not 0.
    id: u8,
    /// 0 for a root.
    parent: u8,
    service: String,
    duration_ms: u64,
    kind: i32,
    is_error: bool,
    attributes: BTreeMap<String, i64>,
    events: Vec<String>,
}

/// Rows are in the order given: each span starts a second after the one before.
fn batch(spans: &[Plain]) -> SpanBatch {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value, ..KeyValue::default() };
    let resource_spans = (1..).zip(spans).map(|(at, plain): (u64, &Plain)| {
        let int = |value: &i64| Some(AnyValue { value: Some(Value::IntValue(*value)) });
        let span = Span {
            trace_id: vec![7; 16],
            span_id: vec![0, 0, 0, 0, 0, 0, 0, plain.id],
            parent_span_id: if plain.parent == 0 { Vec::new() } else { vec![0, 0, 0, 0, 0, 0, 0, plain.parent] },
            name: plain.name.clone(),
            kind: plain.kind,
            start_time_unix_nano: at * SECOND,
            end_time_unix_nano: at * SECOND + plain.duration_ms * 1_000_000,
            attributes: plain.attributes.iter().map(|(key, value)| attribute(key, int(value))).collect(),
            events: plain.events.iter().map(|name| Event { name: name.clone(), ..Event::default() }).collect(),
            status: Some(Status { code: if plain.is_error { 2 } else { 0 }, ..Status::default() }),
            ..Span::default()
        };
        let resource =
            Resource { attributes: vec![attribute("service.name", text(&plain.service))], ..Resource::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }
    });
    let body = TracesData { resource_spans: resource_spans.collect() }.encode_to_vec();
    crate::otlp::decode(body, &DecodeOptions::default()).expect("good spans").batch
}

/// Reads `traces.txt`: a trace is a name and its spans below it, indented by their depth.
fn traces() -> Vec<(String, Vec<Plain>)> {
    let mut traces: Vec<(String, Vec<Plain>)> = Vec::new();
    let mut path: Vec<(usize, u8)> = Vec::new();
    for line in include_str!("traces.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            traces.push((line.to_owned(), Vec::new()));
            path.clear();
            continue;
        }
        let (_, spans) = traces.last_mut().expect("a trace begins with its name");
        let mut words = line.split_whitespace();
        let name = words.next().expect("a name").to_owned();
        while path.last().is_some_and(|(known, _)| depth <= *known) {
            let _deeper = path.pop();
        }
        let id = name.as_bytes()[0];
        let mut span = Plain { name, id, parent: path.last().map_or(0, |(_, id)| *id), ..Plain::default() };
        for word in words {
            match word.split_once('=') {
                Some(("ms", ms)) => span.duration_ms = ms.parse().expect("a number"),
                Some(("service", name)) => name.clone_into(&mut span.service),
                Some(("kind", kind)) => span.kind = kind.parse().expect("a number"),
                Some(("parent", name)) => span.parent = name.as_bytes()[0],
                Some(("event", name)) => span.events.push(name.to_owned()),
                Some((key, value)) => {
                    let _new = span.attributes.insert(key.to_owned(), value.parse().expect("a number"));
                }
                None => span.is_error = word == "error",
            }
        }
        path.push((depth, span.id));
        spans.push(span);
    }
    traces
}

/// `checkout: a c; [by(name)=x] d`.
fn found(query: &SpanQuery, spans: &[Plain]) -> Vec<String> {
    let batch = batch(spans);
    let trace = TraceSpans::new(&batch, 0..batch.spans.len());
    let rows = (0..u32::try_from(spans.len()).unwrap()).collect();
    // Filters say enough of what they ask.
    let shown = if query.to_string().contains("select(") { query.shown() } else { Vec::new() };
    let set = |set: &crate::query::traceql::RowSet| {
        let mut text = String::new();
        for (key, value) in &set.attributes {
            let value = value.as_ref().map_or_else(|| "nil".to_owned(), ToString::to_string);
            write!(text, "[{key}={value}] ").unwrap();
        }
        let span = |row: &u32| {
            let values: Vec<String> =
                shown.iter().filter_map(|field| Some(trace.first_value(field, *row)?.to_string())).collect();
            let name = &spans[*row as usize].name;
            if values.is_empty() { name.clone() } else { format!("{name}({})", values.join(",")) }
        };
        text + &set.rows.iter().map(span).collect::<Vec<_>>().join(" ")
    };
    query.find(&trace, rows).iter().map(set).collect()
}

#[test]
fn every_query_of_the_list_finds_what_it_says() {
    let traces = traces();
    let mut answered = String::new();
    let mut n_queries = 0;
    for line in include_str!("spansets.txt").lines().filter(|line| !line.starts_with("    ")) {
        writeln!(answered, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        n_queries += 1;
        let query: SpanQuery = match line.parse() {
            Ok(query) => query,
            Err(error) => {
                writeln!(answered, "    !! {error}").unwrap();
                continue;
            }
        };
        let again: SpanQuery = query.to_string().parse().unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(again, query, "{line} as {query}");
        for (name, spans) in &traces {
            let sets = found(&query, spans);
            if !sets.is_empty() {
                writeln!(answered, "    {name}: {}", sets.join("; ")).unwrap();
            }
            assert_needed(&query, spans);
        }
    }
    assert!(150 <= n_queries, "{n_queries}");
    expect_file!["spansets.txt"].assert_eq(&answered);
}

/// What a scan looks for is there wherever something is found.
#[track_caller]
fn assert_needed(query: &SpanQuery, spans: &[Plain]) {
    let batch = batch(spans);
    let rows = (0..u32::try_from(spans.len()).unwrap()).collect();
    let finds = !query.find(&TraceSpans::new(&batch, 0..batch.spans.len()), rows).is_empty();
    let need = query.need();
    let met = (0..).zip(need.filters()).filter(|(_, filter)| (0..spans.len()).any(|row| filter.matches(&batch, row)));
    let met = met.fold(0, |met, (number, _): (u32, _)| met | 1 << number);
    assert!(!finds || need.holds(met), "{query} finds something, and its need is not met");
}

/// A query as the oracle knows it.
enum Asked {
    /// `{ span.<key> <operator> <number> }`
    Is {
        key: &'static str,
        operator: &'static str,
        number: i64,
    },
    /// `{ name = ".." }`
    Named(char),
    And(Box<Asked>, Box<Asked>),
    Or(Box<Asked>, Box<Asked>),
    Related {
        sign: &'static str,
        left: Box<Asked>,
        right: Box<Asked>,
    },
    /// `(.. | count() > n)`
    Count {
        of: Box<Asked>,
        above: usize,
    },
    /// `(.. | by(span.<key>) | max(span.<key>) >= n)`
    MaxBy {
        of: Box<Asked>,
        by: &'static str,
        max: &'static str,
        least: i64,
    },
    /// `{ parent.span.<key> = number }`
    OfParent {
        key: &'static str,
        number: i64,
    },
    /// `{ span:childCount = n }`
    Children(usize),
}

const SIGNS: [&str; 15] = [">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~", "&>", "&>>", "&<", "&<<", "&~"];

impl Asked {
    fn random(dice: &mut Dice, depth: u64) -> Self {
        let key = |dice: &mut Dice| dice.pick(&["x", "y"]);
        if depth == 0 || dice.one_in(4) {
            let number = i64::try_from(dice.below(3)).unwrap();
            return match dice.below(6) {
                0 => Self::Named(char::from(b'a' + u8::try_from(dice.below(4)).unwrap())),
                1 => Self::OfParent { key: key(dice), number },
                2 => Self::Children(usize::try_from(dice.below(3)).unwrap()),
                _ => Self::Is { key: key(dice), operator: dice.pick(&["=", "!=", "<", ">="]), number },
            };
        }
        let part = |dice: &mut Dice| Box::new(Self::random(dice, depth - 1));
        match dice.below(8) {
            0 => Self::And(part(dice), part(dice)),
            1 => Self::Or(part(dice), part(dice)),
            2 => Self::Count { of: part(dice), above: usize::try_from(dice.below(4)).unwrap() },
            3 => {
                let least = i64::try_from(dice.below(3)).unwrap();
                Self::MaxBy { of: part(dice), by: key(dice), max: key(dice), least }
            }
            _ => Self::Related { sign: dice.pick(&SIGNS), left: part(dice), right: part(dice) },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Is { key, operator, number } => format!("{{ span.{key} {operator} {number} }}"),
            Self::Named(name) => format!("{{ name = \"{name}\" }}"),
            Self::And(left, right) => format!("({} && {})", left.text(), right.text()),
            Self::Or(left, right) => format!("({} || {})", left.text(), right.text()),
            Self::Related { sign, left, right } => format!("({} {sign} {})", left.text(), right.text()),
            Self::Count { of, above } => format!("({} | count() > {above})", of.text()),
            Self::MaxBy { of, by, max, least } => {
                format!("({} | by(span.{by}) | max(span.{max}) >= {least})", of.text())
            }
            Self::OfParent { key, number } => format!("{{ parent.span.{key} = {number} }}"),
            Self::Children(n) => format!("{{ span:childCount = {n} }}"),
        }
    }

    /// The positions of the spans that it finds.
    fn finds(&self, spans: &[Plain]) -> BTreeSet<usize> {
        let all = 0..spans.len();
        match self {
            Self::Is { key, operator, number } => all
                .filter(|at| {
                    spans[*at].attributes.get(*key).is_some_and(|value| match *operator {
                        "=" => value == number,
                        "!=" => value != number,
                        "<" => value < number,
                        _ => value >= number,
                    })
                })
                .collect(),
            Self::Named(name) => all.filter(|at| spans[*at].name == name.to_string()).collect(),
            Self::And(left, right) => {
                let (left, right) = (left.finds(spans), right.finds(spans));
                if left.is_empty() || right.is_empty() { BTreeSet::new() } else { &left | &right }
            }
            Self::Or(left, right) => &left.finds(spans) | &right.finds(spans),
            Self::Related { sign, left, right } => {
                let (left, right) = (left.finds(spans), right.finds(spans));
                let is = |l: usize, r: usize| match sign.trim_start_matches(['!', '&']) {
                    ">" => parent(spans, r) == Some(l),
                    "<" => parent(spans, l) == Some(r),
                    ">>" => ancestors(spans, r).contains(&l),
                    "<<" => ancestors(spans, l).contains(&r),
                    _ => l != r && parent(spans, l).is_some() && parent(spans, l) == parent(spans, r),
                };
                let has_left = |r: &usize| left.iter().any(|l| is(*l, *r));
                let mut found: BTreeSet<usize> =
                    right.iter().copied().filter(|r| has_left(r) != sign.starts_with('!')).collect();
                if sign.starts_with('&') {
                    found.extend(left.iter().copied().filter(|l| right.iter().any(|r| is(*l, *r))));
                }
                found
            }
            Self::Count { of, above } => Some(of.finds(spans)).filter(|found| *above < found.len()).unwrap_or_default(),
            Self::MaxBy { of, by, max, least } => {
                let of = of.finds(spans);
                let value = |at: &usize, key: &str| spans[*at].attributes.get(key).copied();
                let is_large = |at: &usize| {
                    let group = of.iter().filter(|other| value(other, by) == value(at, by));
                    group.filter_map(|other| value(other, max)).max().is_some_and(|max| *least <= max)
                };
                of.iter().copied().filter(is_large).collect()
            }
            Self::OfParent { key, number } => all
                .filter(|at| parent(spans, *at).is_some_and(|at| spans[at].attributes.get(*key) == Some(number)))
                .collect(),
            Self::Children(n) => all
                .filter(|at| (0..spans.len()).filter(|other| parent(spans, *other) == Some(*at)).count() == *n)
                .collect(),
        }
    }
}

fn parent(spans: &[Plain], at: usize) -> Option<usize> {
    spans.iter().position(|span| span.id == spans[at].parent)
}

fn ancestors(spans: &[Plain], at: usize) -> Vec<usize> {
    std::iter::successors(parent(spans, at), |at| parent(spans, *at)).collect()
}

/// Parents come anywhere among the spans, some are missing.
fn random_trace(dice: &mut Dice) -> Vec<Plain> {
    let n = u8::try_from(1 + dice.below(9)).unwrap();
    let mut spans: Vec<Plain> = (1..=n)
        .map(|id| {
            let parent = match dice.below(12) {
                0 => 0,
                1 => 200,
                _ => u8::try_from(dice.below(u64::from(id))).unwrap(),
            };
            let mut attributes = BTreeMap::new();
            for key in ["x", "y"] {
                if !dice.one_in(4) {
                    let _new = attributes.insert(key.to_owned(), i64::try_from(dice.below(3)).unwrap());
                }
            }
            let name = char::from(b'a' + u8::try_from(dice.below(4)).unwrap()).to_string();
            Plain { name, id, parent, attributes, ..Plain::default() }
        })
        .collect();
    for at in (1..spans.len()).rev() {
        spans.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap());
    }
    spans
}

#[test]
fn random_queries_find_in_random_traces_what_an_evaluator_of_plain_structs_finds() {
    let mut dice = Dice(11);
    let (mut n_found, mut n_empty) = (0, 0);
    for _ in 0..6_000 {
        let asked = Asked::random(&mut dice, 3);
        let query: SpanQuery = asked.text().parse().unwrap_or_else(|error| panic!("{}: {error}", asked.text()));
        for _ in 0..4 {
            let spans = random_trace(&mut dice);
            let batch = batch(&spans);
            let rows = (0..u32::try_from(spans.len()).unwrap()).collect();
            let sets = query.find(&TraceSpans::new(&batch, 0..batch.spans.len()), rows);
            let found: BTreeSet<usize> = sets.iter().flat_map(|set| &set.rows).map(|row| *row as usize).collect();
            assert_eq!(found, asked.finds(&spans), "{} in {spans:#?}", asked.text());
            assert_needed(&query, &spans);
            if found.is_empty() { n_empty += 1 } else { n_found += 1 }
        }
    }
    assert!(4_000 < n_found && 4_000 < n_empty, "{n_found} {n_empty}");
}

#[test]
fn nested_sets_lie_inside_each_other_as_the_spans_do_and_only_roots_lead_to_them() {
    let mut dice = Dice(5);
    let field = |name: &str| -> SpanQuery { format!("{{}} | select({name})").parse().unwrap() };
    let [left, right, up] = ["nestedSetLeft", "nestedSetRight", "nestedSetParent"].map(field);
    for _ in 0..2_000 {
        let spans = random_trace(&mut dice);
        let batch = batch(&spans);
        let trace = TraceSpans::new(&batch, 0..batch.spans.len());
        let number = |query: &SpanQuery, at: usize| -> i64 {
            let value = trace.first_value(query.shown()[0], u32::try_from(at).unwrap());
            value.expect("every span has one").to_string().parse().unwrap()
        };
        for at in 0..spans.len() {
            let (l, r, p) = (number(&left, at), number(&right, at), number(&up, at));
            let top = ancestors(&spans, at).last().copied().unwrap_or(at);
            if spans[top].parent != 0 {
                assert_eq!((l, r), (0, 0), "{spans:#?}");
                continue;
            }
            assert!(1 <= l && l < r, "{l} {r}");
            assert_eq!(p, parent(&spans, at).map_or(-1, |parent| number(&left, parent)));
            for other in 0..spans.len() {
                let is_inside = l < number(&left, other) && number(&right, other) < r;
                assert_eq!(is_inside, ancestors(&spans, other).contains(&at), "{at} {other} in {spans:#?}");
            }
        }
    }
}

/// Nobody sends them in good faith, and they must not hang a search.
#[test]
fn parents_that_go_round_in_a_ring_are_cut_at_the_earliest_span() {
    let span = |id: u8, parent| Plain { name: char::from(id).to_string(), id, parent, ..Plain::default() };
    let spans = vec![span(b'c', b'a'), span(b'a', b'b'), span(b'b', b'c'), span(b'd', b'b'), span(b'e', b'e')];
    for (query, expected) in [
        ("{ name = `c` } >> {}", "a b d"),
        ("{ name = `a` } << {}", "c b"),
        ("{} > { name = `c` }", ""),
        ("{ span:childCount = 0 }", "a d e"),
        ("{ nestedSetLeft = 0 }", "c a b d e"),
    ] {
        assert_eq!(found(&query.parse().unwrap(), &spans).join("; "), expected, "{query}");
    }
}
