//! Which texts are filters, what they say, and what the others are told.

use std::fmt::Write as _;

use expect_test::expect_file;

use crate::limits::{TRACEQL_BYTES_MAX, TRACEQL_DEPTH_MAX};
use crate::query::traceql::{Field, Filter};

#[test]
fn every_query_of_the_list_is_taken_or_refused_as_it_says() {
    let list = include_str!("filters.txt");
    let mut answered = String::new();
    let mut n_queries = 0;
    for line in list.lines().filter(|line| !line.starts_with("    ")) {
        answered.push_str(line);
        answered.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        n_queries += 1;
        match line.parse::<Filter>() {
            Ok(filter) => writeln!(answered, "    => {filter}").unwrap(),
            Err(error) => writeln!(answered, "    !! {error}").unwrap(),
        }
    }
    assert!(120 <= n_queries, "{n_queries}");
    expect_file!["filters.txt"].assert_eq(&answered);
}

#[test]
fn a_filter_written_in_normal_form_is_the_same_filter() {
    let queries = include_str!("filters.txt").lines().filter(|line| !line.starts_with([' ', '#']));
    for query in queries {
        if let Ok(filter) = query.parse::<Filter>() {
            let again: Filter = filter.to_string().parse().unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(again, filter, "{query} as {filter}");
        }
    }
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = text.parse::<Filter>().expect_err("it is no filter");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn errors_count_lines_and_characters() {
    check_error(
        ".a = \"gr\u{fc}n\"\n  && .b == 2",
        "line 2, column 9: found `==`, expected an operator or the end; equality is one `=`",
    );
}

#[test]
fn a_long_chain_is_one_operator_and_what_is_too_deep_says_so() {
    let chain = vec![".a = 1"; 1_000].join(" || ");
    assert!(chain.parse::<Filter>().is_ok());
    let long = format!(".a = \"{}\"", "x".repeat(TRACEQL_BYTES_MAX));
    check_error(&long, &format!("line 1, column 1: {} bytes are too many, at most {TRACEQL_BYTES_MAX}", long.len()));
    for (open, close) in [("(", ")"), ("!", ""), ("- ", ""), ("1 ^ ", ""), ("(!(.a && (", "))"), ("1 + ", "")] {
        for n in [TRACEQL_DEPTH_MAX / 5, TRACEQL_DEPTH_MAX * 3, TRACEQL_BYTES_MAX / 20] {
            let text = format!("{}.a{} != nil", open.repeat(n), close.repeat(n));
            let parsed = text.parse::<Filter>();
            assert!(n <= TRACEQL_DEPTH_MAX / 5 || parsed.is_err(), "{open} {n}");
        }
    }
    let deep = format!("{}.a", "!".repeat(TRACEQL_DEPTH_MAX + 1));
    let error = deep.parse::<Filter>().unwrap_err().to_string();
    assert!(error.contains("inside each other"), "{error}");
}

#[test]
fn no_text_panics() {
    let words =
        ["{", "}", "(", ")", ".a", "=", "!", "-", "nil", "\"", "`", "\\", "\u{e9}", "1", "s", "&&", "~", "span.", "\n"];
    let mut number = 7_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..number % 9 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[usize::try_from(number >> 33).unwrap() % words.len()]);
        }
        number = number.wrapping_add(1);
        let _any = text.parse::<Filter>();
        let _any = text.parse::<Field>();
    }
}

#[track_caller]
fn check_field(text: &str, expected: &str) {
    let shown = text.parse::<Field>().map_or_else(|error| format!("!! {error}"), |field| field.to_string());
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn a_field_is_one_name() {
    check_field("name", "span:name");
    check_field(" span:kind ", "span:kind");
    check_field("status", "span:status");
    check_field("resource.cloud.availability_zone", "resource.cloud.availability_zone");
    check_field("span.http.route", "span.http.route");
    check_field(".http.route", ".http.route");
    check_field("span.\"a b\"", "span.\"a b\"");
    check_field("instrumentation:name", "instrumentation:name");
    check_field(
        "http.route",
        "!! line 1, column 1: found `http`, expected a field, a value, `!`, `-` or `(`; an attribute has its scope in \
         front: span.http.route, resource.http.route, or .http.route for either",
    );
    check_field("", "!! line 1, column 1: found the end, expected a field, a value, `!`, `-` or `(`");
    check_field("5", "!! line 1, column 1: found `5`, expected one field, such as name or span.http.route");
    check_field("name = 5", "!! line 1, column 6: found `=`, expected the end behind one field");
    check_field("span.a, span.b", "!! line 1, column 7: found `,`, expected the end behind one field");
    check_field(
        "event.exception.type",
        "!! line 1, column 1: event.exception.type is not supported in by=; a span has several values of it: one per \
         event or link",
    );
    check_field(
        "rootServiceName",
        "!! line 1, column 1: `rootServiceName` is not supported in by=; it needs other spans of the trace, and each \
         span is looked at alone",
    );
}
