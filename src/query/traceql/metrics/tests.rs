//! Texts that are metrics queries, and such as are none.

use super::*;

/// What is written, and its normal form, which reads the same.
#[track_caller]
fn check(text: &str, normal: &str) {
    let query: MetricsQuery = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(query.to_string(), normal, "{text}");
    assert_eq!(normal.parse::<MetricsQuery>().as_ref(), Ok(&query), "{normal}");
}

#[test]
fn a_query_is_its_spans_its_function_its_fields_its_stages_and_its_hints() {
    for (text, normal) in [
        ("{} | rate()", "{ true } | rate()"),
        ("{ } | count_over_time() by(name)", "{ true } | count_over_time() by(name)"),
        (
            "{status=error && name != nil}|quantile_over_time(duration, .9, 1) by (resource.service.name, span:kind , .a)",
            "{ span:status = error && span:name != nil } | quantile_over_time(span:duration, 0.9, 1.0) \
             by(resource.service.name, span:kind, .a)",
        ),
        (
            "{true} | histogram_over_time(span.bytes) with(sample=true, exemplars=7, extrapolate=false)",
            "{ true } | histogram_over_time(span.bytes) with(exemplars=7)",
        ),
        (
            "{nestedSetParent<0 && true} | rate()  with(sample=true)",
            "{ span:parentID = \"0000000000000000\" && true } | rate()",
        ),
        ("{} | rate() with(exemplars=false)", "{ true } | rate() with(exemplars=0)"),
        ("{} | min_over_time(resource.\"a b\")", "{ true } | min_over_time(resource.\"a b\")"),
        ("{} | rate() by(name) | topk(3)", "{ true } | rate() by(name) | topk(3)"),
        ("{} | rate() > 5 | bottomk(1) <= -.5", "{ true } | rate() > 5.0 | bottomk(1) <= -0.5"),
        ("{} | avg_over_time(duration) >= 100ms", "{ true } | avg_over_time(span:duration) >= 0.1"),
        ("({} | rate()) = 0", "{ true } | rate() = 0.0"),
        ("(({} | rate()))", "{ true } | rate()"),
        ("({status=error} | rate()) / ({} | rate())", "({ span:status = error } | rate()) / ({ true } | rate())"),
        ("({} | rate()) * 60 | topk(2)", "({ true } | rate()) * 60.0 | topk(2)"),
        ("100 - ({} | rate()) * (2 + 3)", "100.0 - (({ true } | rate()) * (2.0 + 3.0))"),
        ("({} | rate() by(name) | topk(3)) + -1", "({ true } | rate() by(name) | topk(3)) + -1.0"),
        ("{(name = \"a\")} | rate() != 1e3", "{ span:name = \"a\" } | rate() != 1000.0"),
        ("{} | compare({status=error})", "{ true } | compare({ span:status = error }, 10)"),
        ("{.a} >> {status=error} | rate() by (name)", "{ .a } >> { span:status = error } | rate() by(name)"),
        ("({.a} && {.b}) | rate()", "{ .a } && { .b } | rate()"),
        ("({.a}) | rate()", "{ .a } | rate()"),
        ("({.a} | count() > 1) > {.b} | rate() > 2", "({ .a } | count() > 1) > { .b } | rate() > 2.0"),
        ("{} | count() > 2 | avg(duration) > 1s | rate()", "{ true } | count() > 2 | avg(span:duration) > 1s | rate()"),
        (
            "{} | by(name) | {.a} | select(.b) | coalesce() | rate()",
            "{ true } | by(span:name) | { .a } | select(.b) | coalesce() | rate()",
        ),
        ("({.a} > {.b} | rate()) * 2", "({ .a } > { .b } | rate()) * 2.0"),
        ("{} | compare({}, 7, 100, 200) with(sample=true)", "{ true } | compare({ true }, 7, 100, 200)"),
    ] {
        check(text, normal);
    }
}

#[test]
fn what_is_no_query_is_refused_where_it_goes_wrong_and_by_name() {
    let many_numbers = format!("({{}} | rate()){}", " + 1".repeat(PARTS_MAX));
    let many_brackets = format!("{}{{}} | rate(){}", "(".repeat(PARTS_MAX), ")".repeat(PARTS_MAX));
    let many_queries = ["({} | rate())"; QUERIES_MAX + 1].join(" + ");
    for (text, column, what) in [
        ("rate()", 1, "expected `{`"),
        ("{} rate()", 4, "expected `|`"),
        ("{} | rat()", 6, "a metrics function"),
        ("{} | rate(", 11, "expected `)`"),
        ("{ duration > } | rate()", 14, "expected a field"),
        ("{} | rate() by(event.name)", 16, "is not supported"),
        ("{} | rate() by(name, a, b)", 22, "an attribute has its scope in front"),
        ("{} | rate() by(.a, .b, .c, .d, .e, .f)", 36, "`by` of more than 5 fields is not supported"),
        ("{} | rate() by(.a, .a)", 20, ".a twice in `by` is not supported"),
        ("{} | avg_over_time(name)", 20, "span:name: it is no number"),
        ("{} | avg_over_time(event:timeSinceStart)", 20, "is not supported"),
        ("{} | avg_over_time()", 20, "expected a field"),
        ("{} | quantile_over_time(duration)", 33, "a quantile from 0 to 1"),
        ("{} | quantile_over_time(duration, 2)", 35, "from 0 to 1"),
        ("{} >> | rate()", 7, "expected `{` or `(`"),
        ("{} | count() | rate()", 14, "expected"),
        ("{} | select(name)", 18, "expected `|` and a metrics function"),
        ("{} | topk(3)", 6, "`topk` is not supported"),
        ("{} | rate() | topk(0)", 20, "a whole number from 1 to 1000"),
        ("{} | rate() | topk(1001)", 20, "a whole number from 1 to 1000"),
        ("{} | rate() | avg()", 15, "topk(n) or bottomk(n)"),
        ("{} | rate() > name", 15, "a number to compare with"),
        ("{} | rate() * 60", 13, "`*` behind a query without brackets is not supported"),
        ("({} | rate()) % 60", 15, "`%` behind metrics is not supported"),
        ("({} | rate()) / {} | rate()", 17, "a number, or a query in brackets"),
        ("({} | rate()) / (1", 19, "an operator, a second stage or `)`"),
        ("1 + 2", 1, "a number without a query is not supported"),
        ("({} | rate()) + (1 > 2)", 18, "a number without a query is not supported"),
        ("{} | compare({status=error}, 0)", 30, "a whole number from 1 to 1000"),
        ("{} | compare({status=error}, 10, 5)", 35, "the end of the selection"),
        ("{} | compare({status=error}, 10, 5, 5)", 38, "the selection ends at 5"),
        ("{} | compare({status=error}, 10, -5, 5)", 34, "unix nanoseconds"),
        ("{} | compare({}) by(name)", 18, "`by` behind compare is not supported"),
        ("{} | rate() with(extrapolate=true)", 18, "the hint extrapolate=true is not supported"),
        ("{} | rate() with(fast=1)", 18, "the hint fast=1 is not supported"),
        ("{} | rate() {}", 13, "a second stage or the end"),
        (&many_numbers, 265, "at most 64 queries, numbers, brackets and stages"),
        (&many_brackets, 65, "at most 64 queries, numbers, brackets and stages"),
        (&many_queries, 162, "at most 10 queries"),
    ] {
        let error = text.parse::<MetricsQuery>().expect_err(text);
        assert!(error.to_string().contains(what), "{text}: {error}");
        assert_eq!((error.line, error.column), (1, column), "{text}: {error}");
    }
}
