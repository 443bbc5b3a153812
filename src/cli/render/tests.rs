mod standing;

use expect_test::{Expect, expect};

use super::waterfall::waterfall_of;
use super::*;
use crate::cli::view::{GraphView, PercentileView, RankView, ResourceView, ServicesView, SpanView, TraceView};
use crate::model::{DurationNanos, UnixNanos};

const NOW: UnixNanos = UnixNanos(1_795_463_900_000_000_000);
const ASCII: Style = Style { color: false, ascii: true };

/// Times in milliseconds after `NOW`.
fn span(id: &str, parent: &str, resource: usize, name: &str, (start, end): (u64, u64)) -> SpanView {
    SpanView {
        resource,
        span_id: id.into(),
        parent_span_id: parent.into(),
        name: name.into(),
        start: UnixNanos(NOW.0 + start * 1_000_000),
        end: UnixNanos(NOW.0 + end * 1_000_000),
        ..SpanView::default()
    }
}

fn trace(spans: Vec<SpanView>) -> TraceView {
    let resource = |(service, zone): (&str, &str)| ResourceView {
        service: service.into(),
        attributes: vec![("service.name".into(), service.into()), ("cloud.availability_zone".into(), zone.into())],
    };
    let services = [("frontend", "eu-1a"), ("checkout", "eu-1c"), ("payment", "eu-1b"), ("email", "eu-1a")];
    TraceView {
        trace_id: "9f0c51d8a4e0427ab6a2f0c4d1e2b3a4".into(),
        spans,
        resources: services.into_iter().map(resource).collect(),
        path_roots: 0,
        highlight: None,
    }
}

fn checkout() -> TraceView {
    let mut trace = trace(vec![
        span("a", "", 0, "POST /api/checkout", (0, 812)),
        span("b", "a", 0, "POST /checkout", (4, 810)),
        span("c", "b", 1, "POST /checkout", (5, 809)),
        span("d", "c", 1, "INSERT orders", (20, 25)),
        span("e", "c", 1, "payment.v3.Payments/Charge", (30, 780)),
        span("f", "e", 2, "payment.v3.Payments/Charge", (31, 779)),
        span("g", "c", 1, "send order-confirmations", (790, 791)),
        span("h", "g", 3, "process order-confirmations", (830, 900)),
    ]);
    trace.spans[5].error = true;
    trace.spans[5].status_message = "deadline exceeded".into();
    trace.spans[5].attributes = vec![("rpc.method".into(), "payment.v3.Payments/Charge".into())];
    trace.highlight = Some("c".into());
    trace
}

/// The same as the server answers it: with ranks, and its critical path.
fn ranked() -> TraceView {
    let mut trace = checkout();
    trace.path_roots = 1;
    let rank = |percentile, count, series: &str| Some(RankView { percentile, count, series: series.into() });
    trace.spans[0].rank = rank(0.9612, 20_000, "frontend POST /api/checkout");
    trace.spans[2].rank = rank(0.9734, 12_345, "checkout POST /checkout");
    trace.spans[3].rank = rank(0.404, 12_345, "checkout INSERT orders");
    trace.spans[5].rank = rank(0.999_91, 45_678, "payment payment.v3.Payments/Charge");
    trace.spans[7].rank = rank(1.0, 3, "email process order-confirmations");
    for (at, millis) in [(0, 6), (1, 2), (2, 44), (4, 2), (5, 748), (6, 1)] {
        trace.spans[at].on_path = Some(DurationNanos::from_millis(millis));
    }
    trace
}

#[track_caller]
fn check(trace: &TraceView, width: usize, expected: &Expect) {
    let drawn = waterfall(trace, width, ASCII);
    expected.assert_eq(&drawn);
    // The headline is prose and may wrap.
    assert!(drawn.lines().skip(2).all(|line| line.chars().count() <= width), "a line is wider than {width}");
}

#[test]
fn a_wide_waterfall_has_services_and_bars() {
    check(
        &checkout(),
        100,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

              service  span                                duration 0                                     900 ms
              frontend POST /api/checkout                    812 ms ########################################
              frontend `-POST /checkout                      806 ms ########################################
            > checkout   `-POST /checkout                    804 ms ########################################
              checkout     |-INSERT orders                  5.00 ms |
              checkout     |-payment.v3.Payments/Charge      750 ms  ######################################
             !payment      | `-payment.v3.Payments/Charge    748 ms  ######################################
              checkout     `-send order-confirmations       1.00 ms                                       |
              email          `-process order-confirmations  70.0 ms                                         ####

            > checkout: POST /checkout
              service.name             checkout
              cloud.availability_zone  eu-1c
        "#]],
    );
}

#[test]
fn a_narrow_waterfall_puts_services_before_names() {
    check(
        &checkout(),
        60,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

              span                              duration 0        900 ms
              frontend: POST /api/checkout        812 ms ##############
              `-frontend: POST /checkout          806 ms ##############
            >   `-checkout: POST /checkout        804 ms ##############
                  |-checkout: INSERT orders      5.00 ms |
                  |-checkout: payment.v3.Payme~   750 ms #############
             !    | `-payment: payment.v3.Paym~   748 ms #############
                  `-checkout: send order-confi~  1.00 ms              |
                    `-email: process order-con~  70.0 ms              ##

            > checkout: POST /checkout
              service.name             checkout
              cloud.availability_zone  eu-1c
        "#]],
    );
}

#[test]
fn a_very_narrow_waterfall_has_no_bars() {
    check(
        &checkout(),
        48,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

          span                                 duration
          frontend: POST /api/checkout           812 ms
          `-frontend: POST /checkout             806 ms
        >   `-checkout: POST /checkout           804 ms
              |-checkout: INSERT orders         5.00 ms
              |-checkout: payment.v3.Payments~   750 ms
         !    | `-payment: payment.v3.Payment~   748 ms
              `-checkout: send order-confirma~  1.00 ms
                `-email: process order-confir~  70.0 ms

        > checkout: POST /checkout
          service.name             checkout
          cloud.availability_zone  eu-1c
    "#]],
    );
}

#[test]
fn a_highlighted_error_shows_its_message_and_attributes() {
    let mut trace = checkout();
    trace.spans.truncate(6);
    trace.spans.drain(..4);
    trace.highlight = Some("F".into());
    check(
        &trace,
        80,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 750 ms, 2 spans, 2 services, 1 error

              span                                    duration 0                      750 ms
              (parent not stored)
              `-checkout: payment.v3.Payments/Charge    750 ms #############################
            >!  `-payment: payment.v3.Payments/Charge   748 ms #############################

            > payment: payment.v3.Payments/Charge
              deadline exceeded
              rpc.method               payment.v3.Payments/Charge
              service.name             payment
              cloud.availability_zone  eu-1b
        "#]],
    );
}

#[test]
fn an_orphan_stands_below_a_line_that_says_so() {
    let spans = vec![
        span("a", "", 0, "GET /", (0, 10)),
        span("b", "gone", 1, "lost", (2, 8)),
        span("c", "b", 1, "child of lost", (3, 4)),
        span("d", "gone too", 1, "lost later", (5, 6)),
    ];
    check(
        &trace(spans),
        70,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 10.0 ms, 4 spans, 2 services

              span                        duration 0                       10.0 ms
              frontend: GET /              10.0 ms ###############################
              (parent not stored)
              |-checkout: lost             6.00 ms       ###################
              | `-checkout: child of lost  1.00 ms          ####
              `-checkout: lost later       1.00 ms                ####
        "#]],
    );
}

#[test]
fn parents_in_a_circle_are_each_shown_once() {
    let spans = vec![
        span("a", "", 0, "GET /", (0, 10)),
        span("b", "c", 1, "hen", (1, 9)),
        span("c", "b", 1, "egg", (2, 8)),
        span("d", "c", 1, "chick", (3, 4)),
        span("e", "e", 2, "its own parent", (5, 6)),
    ];
    check(
        &trace(spans),
        70,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 10.0 ms, 5 spans, 3 services

              span                      duration 0                         10.0 ms
              frontend: GET /            10.0 ms #################################
              (parents form a circle)
              `-checkout: hen            8.00 ms    ###########################
                `-checkout: egg          6.00 ms       #####################
                  `-checkout: chick      1.00 ms          #####
              (parents form a circle)
              `-payment: its own parent  1.00 ms                 ####
        "#]],
    );
}

#[test]
fn two_spans_with_one_id_are_both_shown_and_share_no_children() {
    let spans = vec![
        span("a", "", 0, "client half", (0, 10)),
        span("a", "", 1, "server half", (1, 9)),
        span("b", "a", 1, "child", (2, 3)),
    ];
    check(
        &trace(spans),
        70,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 10.0 ms, 3 spans, 2 services

              span                  duration 0                             10.0 ms
              frontend: client half  10.0 ms #####################################
              `-checkout: child      1.00 ms        #####
              checkout: server half  8.00 ms    ###############################
        "#]],
    );
}

#[test]
fn hostile_names_are_spelled_out() {
    let mut hostile = trace(vec![
        span("a", "", 0, "\x1b]0;owned\x07", (0, 10)),
        span("b", "a", 1, "two\r\nlines\0", (1, 9)),
        span("c", "a", 4, "\u{202e}desrever", (2, 3)),
        span(
            "d",
            "a",
            9,
            "\u{65e5}\u{672c}\u{8a9e}\u{65e5}\u{672c}\u{8a9e}\u{65e5}\u{672c}\u{8a9e}\u{65e5}\u{672c}",
            (2, 3),
        ),
    ]);
    hostile.resources.push(ResourceView { service: "\x1b[31mred".into(), attributes: vec![] });
    hostile.spans[0].attributes.push(("k\n".into(), "\x1b[2J".into()));
    hostile.highlight = Some("a".into());
    let drawn = waterfall(&hostile, 100, ASCII);
    assert!(!drawn.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{drawn}");
    let ascii_only: Vec<_> = drawn.lines().filter(|line| line.is_ascii()).collect();
    expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 10.0 ms, 4 spans, 4 services

          service     span                     duration 0                                            10.0 ms
        > frontend    \x1b]0;owned\x07          10.0 ms ####################################################
          checkout    |-two\r\nlines\0          8.00 ms      ##########################################
          \x1b[31mred |-\u{202e}desrever        1.00 ms           ######

        > frontend: \x1b]0;owned\x07
          k\n                      \x1b[2J
          service.name             frontend
          cloud.availability_zone  eu-1a"#]]
    .assert_eq(&ascii_only.join("\n"));
}

#[test]
fn times_that_make_no_sense_do_not_bend_the_axis() {
    let mut spans = vec![
        span("a", "", 0, "GET /", (0, 10)),
        span("b", "a", 1, "backwards", (5, 3)),
        span("c", "a", 1, "unset", (0, 0)),
    ];
    spans[2].start = UnixNanos(0);
    spans[2].end = UnixNanos(0);
    check(
        &trace(spans),
        70,
        &expect![[r#"
            trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
            2026-11-23 19:58:20Z, 10.0 ms, 3 spans, 2 services

              span                  duration 0                             10.0 ms
              frontend: GET /        10.0 ms #####################################
              |-checkout: unset            ?
              `-checkout: backwards        ?                   |
        "#]],
    );
}

#[test]
fn a_span_of_less_than_half_a_column_is_a_thin_mark() {
    // 35 columns for a second: 28.6 ms each.
    let spans = vec![
        span("a", "", 0, "GET /", (0, 1_000)),
        span("b", "a", 1, "0.49 of one", (500, 514)),
        span("c", "a", 1, "0.53 of one", (501, 516)),
        span("d", "a", 1, "at the end", (999, 1_000)),
    ];
    check(
        &trace(spans),
        70,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 1.00 s, 4 spans, 2 services

          span                    duration 0                            1.00 s
          frontend: GET /           1.00 s ###################################
          |-checkout: 0.49 of one  14.0 ms                  |
          |-checkout: 0.53 of one  15.0 ms                  ##
          `-checkout: at the end   1.00 ms                                   |
    "#]],
    );
}

#[test]
fn a_long_trace_is_cut_in_the_middle_but_not_at_the_highlight() {
    let mut spans = vec![span("root", "", 0, "GET /", (0, 100))];
    spans.extend((1..40).map(|n| span(&format!("s{n}"), "root", 1, &format!("step {n}"), (n, n + 1))));
    let mut long = trace(spans);
    long.highlight = Some("s20".into());
    let drawn = waterfall_of(&long, 60, ASCII, 9);
    let tree: Vec<_> = drawn
        .lines()
        .skip(4)
        .take_while(|line| !line.is_empty())
        .map(|line| line.get(..30).unwrap_or(line).trim_end())
        .collect();
    expect![[r#"
          frontend: GET /       100 ms
          |-checkout: step 1   1.00 ms
          |-checkout: step 2   1.00 ms
          |-checkout: step 3   1.00 ms
          |-checkout: step 4   1.00 ms
          |-checkout: step 5   1.00 ms
          ... 13 more spans
          |-checkout: step 19  1.00 ms
        > |-checkout: step 20  1.00 ms
          |-checkout: step 21  1.00 ms
          ... 15 more spans
          |-checkout: step 37  1.00 ms
          |-checkout: step 38  1.00 ms
          `-checkout: step 39  1.00 ms"#]]
    .assert_eq(&tree.join("\n"));
}

#[test]
fn a_chain_100_000_deep_is_drawn_without_recursion() {
    let spans: Vec<_> = (0..100_000_u64)
        .map(|n| span(&format!("{n}"), &n.checked_sub(1).map_or(String::new(), |n| n.to_string()), 0, "f", (n, n + 1)))
        .collect();
    let drawn = waterfall(&trace(spans), 100, ASCII);
    assert!(drawn.lines().count() < WATERFALL_ROWS_MAX + 10);
    assert!(drawn.lines().last().unwrap().contains("`-[99999] f"), "{:?}", drawn.lines().last());
}

#[test]
fn an_empty_trace_says_so() {
    check(
        &TraceView::default(),
        80,
        &expect![[r#"
        no spans stored
    "#]],
    );
}

#[test]
fn utf_8_and_colour_change_the_look_but_not_the_layout() {
    let plain = waterfall(&ranked(), 100, ASCII);
    let blocks = waterfall(&ranked(), 100, Style { color: false, ascii: false });
    let translated: String = blocks
        .chars()
        .map(|glyph| match glyph {
            '\u{2588}' => '#',
            '\u{250a}' => ':',
            '\u{258f}' | '\u{2502}' | '\u{251c}' => '|',
            '\u{2514}' => '`',
            '\u{2591}' | '\u{2574}' => '-',
            '\u{2026}' => '~',
            other => other,
        })
        .collect();
    assert_eq!(translated, plain);
    assert!(!blocks.is_ascii() && !blocks.contains('\x1b'));

    let coloured = waterfall(&ranked(), 100, Style { color: true, ascii: true });
    let mut stripped = String::new();
    let mut parts = coloured.split("\x1b[");
    stripped.push_str(parts.next().unwrap());
    parts.for_each(|part| stripped.push_str(part.split_once('m').unwrap().1));
    let trimmed: Vec<_> = stripped.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
    assert_ne!(coloured, plain);
}

const PERCENTILES: &str = r#"{ "service": "checkout", "start_unix_nano": "1795463000000000000",
    "end_unix_nano": "1795463900000000000", "count": 48211,
    "quantiles": [
      { "q": 0.5, "value_ns": 116457471, "relative_error_max": 0.001, "rank": 24106, "exemplars": [
        { "trace_id": "00112233445566778899aabbccddeeff", "duration_ns": 116400000, "in_bucket": false,
          "time_unix_nano": "1795463899000000000", "error": true } ] },
      { "q": 0.99, "value_ns": 812646400, "relative_error_max": 0.001, "rank": 47729, "exemplars": [
        { "trace_id": "9f0c51d8a4e0427ab6a2f0c4d1e2b3a4", "duration_ns": 812401223, "in_bucket": true,
          "time_unix_nano": "1795463712000000000",
          "attributes": { "cloud.availability_zone": "eu-1b", "k8s.pod.name": "evil\u001b[2J" } } ] },
      { "q": 1.0, "value_ns": 1240000000, "relative_error_max": 0.001, "rank": 48211 } ],
    "groups": [ { "labels": { "cloud.availability_zone": "eu-1b" }, "count": 1, "tail_count": 1, "tail_expected": 0.01,
      "quantiles": [ { "q": 0.99, "value_ns": 812646400, "rank": 1, "exemplars": [
        { "trace_id": "9f0c51d8a4e0427ab6a2f0c4d1e2b3a4", "duration_ns": 812401223 } ] } ] },
      { "labels": { "cloud.availability_zone": null }, "count": 48210, "tail_count": 482, "tail_expected": 482.99,
      "quantiles": [ { "q": 0.99, "value_ns": 812646400, "rank": 1 } ] } ],
    "rest": { "groups": 3, "count": 12 },
    "versus": { "start_unix_nano": "1795376600000000000", "count": 40000,
      "quantiles": [ { "q": 0.5, "value_ns": 100000000 }, { "q": 0.99, "value_ns": 400000000 } ] },
    "coverage": { "complete": false, "reasons": ["3 spans over the series cap"] } }"#;

#[test]
fn a_percentile_stands_beside_its_trace() {
    let view: PercentileView = serde_json::from_str(PERCENTILES).unwrap();
    expect![[r#"
        checkout  19:43:20Z to 19:58:20Z (15m 00s)  48,211 spans
        +-----+---------+-------+--------+----------------------------------+------------------+-------------------+----------------------------+
        |     | latency | +-    | rank   | exemplar                         | lasted           | when              | where                      |
        +=======================================================================================================================================+
        | p50 |  116 ms | 0.1 % | 24,106 | 00112233445566778899aabbccddeeff | 116 ms (nearest) | 19:58:19Z, 1s ago | error                      |
        | p99 |  813 ms | 0.1 % | 47,729 | 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4 |           812 ms | 19:55:12Z, 3m ago | zone=eu-1b pod=evil\x1b[2J |
        | max |  1.24 s | 0.1 % | 48,211 | none kept                        |                  |                   |                            |
        +-----+---------+-------+--------+----------------------------------+------------------+-------------------+----------------------------+
        1d 00h earlier: 40,000 spans  p50 100 ms  p99 400 ms

        +---------------------------------+--------+-------------+----------+--------+----------------------------------+
        | group                           | spans  | in the tail | expected | p99    | exemplar                         |
        +===============================================================================================================+
        | cloud.availability_zone=eu-1b   |      1 |           1 |      0.0 | 813 ms | 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4 |
        | without cloud.availability_zone | 48,210 |         482 |    483.0 | 813 ms |                                  |
        +---------------------------------+--------+-------------+----------+--------+----------------------------------+
        3 more groups with 12 spans
        incomplete: 3 spans over the series cap
    "#]].assert_eq(&percentile_table(&view, NOW, ASCII));
}

#[test]
fn edges_are_listed_with_their_calls_and_the_slowest_trace() {
    let view: GraphView = serde_json::from_str(
        r#"{"edges":[{"client":"user","server":"frontend","connection_type":"virtual_node",
              "server_side":{"count":1200,"error_count":3,"rate_per_second":1.3333,
                "quantiles":[{"q":0.5,"value_ns":12000000},{"q":0.95},{"q":0.99,"value_ns":812646400}]},
              "exemplars":[{"trace_id":"9f0c51d8a4e0427ab6a2f0c4d1e2b3a4"}]},
            {"client":"cart","server":"evil\u001b[2J"}],
            "coverage":{"complete":false,"reasons":["block 3 is damaged"]}}"#,
    )
    .unwrap();
    expect![[r#"
        +--------+-------------+--------------+-------+-------+--------+---------+--------+----------------------------------+
        | client | server      | type         | calls | per s | failed | p50     | p99    | slowest                          |
        +====================================================================================================================+
        | user   | frontend    | virtual_node | 1,200 |  1.33 |      3 | 12.0 ms | 813 ms | 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4 |
        | cart   | evil\x1b[2J |              |     0 |  0.00 |      0 |       - |      - |                                  |
        +--------+-------------+--------------+-------+-------+--------+---------+--------+----------------------------------+
        incomplete: block 3 is damaged
    "#]].assert_eq(&graph_table(&view, ASCII));
    assert!(graph_table(&GraphView::default(), ASCII).contains("no calls"));
}

#[test]
fn a_window_without_spans_says_so() {
    let view =
        PercentileView { service: "cart".into(), end_unix_nano: NOW, start_unix_nano: NOW, ..Default::default() };
    expect![[r#"
        cart  19:58:20Z to 19:58:20Z (0 ns)  0 spans
        no spans in this window
    "#]]
    .assert_eq(&percentile_table(&view, NOW, ASCII));
}

#[test]
fn services_are_listed_with_their_spans_and_age() {
    let view: ServicesView = serde_json::from_str(
        r#"{"services":[{"name":"checkout","namespace":"sales","span_count":48211,
                         "last_seen_unix_nano":"1795463712000000000"},
                        {"name":"unknown_service","namespace":"","span_count":7,"last_seen_unix_nano":"0"}]}"#,
    )
    .unwrap();
    expect![[r#"
        +-----------------+-----------+--------+-----------+
        | service         | namespace | spans  | last seen |
        +==================================================+
        | checkout        | sales     | 48,211 |    3m ago |
        | unknown_service |           |      7 |     never |
        +-----------------+-----------+--------+-----------+
    "#]]
    .assert_eq(&services_table(&view, NOW, ASCII));
    assert_eq!(services_table(&ServicesView::default(), NOW, ASCII), "no services yet\n");
}

#[test]
fn tables_emit_escape_sequences_only_when_asked() {
    let view: PercentileView = serde_json::from_str(PERCENTILES).unwrap();
    let plain = percentile_table(&view, NOW, Style::default());
    let coloured = percentile_table(&view, NOW, Style { color: true, ascii: false });
    assert!(!plain.contains('\x1b') && coloured.contains("\x1b["));
    assert!(!coloured.contains("\x1b[2J"));
}
