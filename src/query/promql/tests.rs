//! What queries give for samples that are known: the answers of a real Prometheus, and refusals.

mod recorded;
mod samples;

use super::parse::PromQuery;
use super::{Instants, PromError};

#[track_caller]
fn refused(text: &str) -> PromError {
    text.parse::<PromQuery>().expect_err("it is refused")
}

#[test]
fn parse_errors_carry_line_and_column() {
    let cases = [
        ("sum(", 1, 4, "'(' is not closed"),
        ("rate(x[5m)", 1, 10, "')' closes nothing"),
        ("x{a=}", 1, 2, "near \"{a=}\""),
        ("1 + ", 1, 5, "at the end"),
        ("foo bar", 1, 5, "near \"bar\""),
        ("foo +\n  (bar", 2, 3, "'(' is not closed"),
        ("foo\n+ bar\n baz", 3, 2, "near \"baz\""),
    ];
    for (text, at_line, at_column, what) in cases {
        let PromError::Parse { line, column, problem } = refused(text) else { panic!("{text} is parsed") };
        assert_eq!((line, column), (at_line, at_column), "{text}: {problem}");
        assert!(problem.contains(what), "{text}: {problem}");
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let n = 100_000;
    for text in [
        "(".repeat(n),
        format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        format!("{}1{}", "(".repeat(30_000), ")".repeat(30_000)),
        "sum(".repeat(n),
        "abs(".repeat(10_000),
        "x[".repeat(n),
        "{".repeat(n),
    ] {
        assert!(matches!(refused(&text), PromError::Parse { .. }));
    }
}

#[test]
fn long_chains_are_refused_and_do_not_overflow() {
    let n = 10_000;
    for text in [
        vec!["1"; 2_000].join("+"),
        vec!["1"; 2_000].join("^"),
        format!("{}x", "- ".repeat(3_990)),
        vec!["1"; n].join("+"),
        vec!["x"; n].join(" or "),
        vec!["2"; n].join("^"),
        format!("{}1", "-".repeat(n)),
        format!("{}1", "-".repeat(60_000)),
        format!("{}x", "- ".repeat(30_000)),
        format!("x{}", "[1m:]".repeat(n)),
        vec!["1"; 30_000].join("+"),
        vec!["1"; 30_000].join("^"),
    ] {
        let _refused = refused(&text);
    }
    let folded = format!("{}1", "-".repeat(3_990));
    assert!(folded.parse::<PromQuery>().is_ok(), "the grammar makes one number of it");
}

#[test]
fn far_instants_overflow_nothing() {
    let source = samples::Known::read();
    let far = "9223372036854775";
    for text in [
        format!("memory_used @ {far}"),
        format!("memory_used @ -{far}"),
        format!("memory_used @ -{far} offset 1000y"),
        format!("memory_used @ {far} offset -1000y"),
        format!("timestamp(memory_used @ -{far})"),
        format!("rate(memory_used[1000y] @ -{far})"),
        format!("absent_over_time(memory_used[1000y] @ -{far} offset 1000y)"),
        format!("max_over_time(memory_used[1m:1s] @ -{far} offset 1000y)"),
        format!("max_over_time(memory_used[1m:1s] @ {far} offset -1000y)"),
        "memory_used @ 1e300".to_owned(),
        "memory_used @ -1e300".to_owned(),
        "memory_used offset 100000y".to_owned(),
        "rate(memory_used[99999999999999999999y])".to_owned(),
    ] {
        for at in [i64::MIN, 0, i64::MAX] {
            let _no_panic = text.parse::<PromQuery>().and_then(|query| query.value(&source, Instants::Instant(at)));
        }
    }
}

#[test]
fn a_subquery_of_too_many_instants_is_refused() {
    let query: PromQuery = "max_over_time(memory_used[100y:1ms])".parse().unwrap();
    let refused = query.value(&samples::Known::read(), Instants::Instant(1_709_209_207_000));
    assert!(matches!(refused, Err(PromError::TooMuch { .. })));
}

#[test]
fn what_is_not_built_is_refused_by_its_name() {
    for (text, name) in [
        ("predict_linear(x[5m], 60)", "function predict_linear"),
        ("deriv(x[5m])", "function deriv"),
        ("double_exponential_smoothing(x[5m], 0.5, 0.5)", "function double_exponential_smoothing"),
        ("limitk(1, x)", "aggregation limitk"),
        ("limit_ratio(0.5, x)", "aggregation limit_ratio"),
    ] {
        match refused(text) {
            PromError::Unsupported { what } => assert_eq!(what, name, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }
}
