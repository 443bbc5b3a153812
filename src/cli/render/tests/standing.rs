//! Where spans stand: their ranks, and the critical path.

use expect_test::expect;

use super::{check, ranked, span, trace};
use crate::cli::render::{Style, waterfall};
use crate::model::DurationNanos;

#[test]
fn ranks_and_the_critical_path_are_shown_without_colour() {
    check(
        &ranked(),
        110,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

          service  span                                duration   rank 0                                        900 ms
          frontend POST /api/checkout                    812 ms  p96.1 ###########################################
          frontend `-POST /checkout                      806 ms        ###########################################
        > checkout   `-POST /checkout                    804 ms  p97.3 ###########################################
          checkout     |-INSERT orders                  5.00 ms  p40.4  :
          checkout     |-payment.v3.Payments/Charge      750 ms         ########################################
         !payment      | `-payment.v3.Payments/Charge    748 ms p99.99  ########################################
          checkout     `-send order-confirmations       1.00 ms                                                 |
          email          `-process order-confirmations  70.0 ms    max                                            ----
          # on the critical path, - beside it

        > checkout: POST /checkout
          p97.3 of 12,345 checkout POST /checkout spans within half an hour, 44.0 ms of its own on the critical path
          service.name             checkout
          cloud.availability_zone  eu-1c
    "#]],
    );
}

#[test]
fn a_narrow_waterfall_has_no_ranks_but_its_critical_path() {
    check(
        &ranked(),
        80,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

          span                                        duration 0                  900 ms
          frontend: POST /api/checkout                  812 ms #######################
          `-frontend: POST /checkout                    806 ms #######################
        >   `-checkout: POST /checkout                  804 ms #######################
              |-checkout: INSERT orders                5.00 ms :
              |-checkout: payment.v3.Payments/Charge    750 ms ######################
         !    | `-payment: payment.v3.Payments/Charge   748 ms ######################
              `-checkout: send order-confirmations     1.00 ms                      |
                `-email: process order-confirmations   70.0 ms                        --
          # on the critical path, - beside it

        > checkout: POST /checkout
          p97.3 of 12,345 checkout POST /checkout spans within half an hour
          44.0 ms of its own on the critical path
          service.name             checkout
          cloud.availability_zone  eu-1c
    "#]],
    );
}

#[test]
fn a_very_narrow_waterfall_says_of_the_highlighted_span_alone_where_it_stands() {
    let mut trace = ranked();
    trace.highlight = Some("h".into());
    check(
        &trace,
        48,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 900 ms, 8 spans, 4 services, 1 error

          span                                 duration
          frontend: POST /api/checkout           812 ms
          `-frontend: POST /checkout             806 ms
            `-checkout: POST /checkout           804 ms
              |-checkout: INSERT orders         5.00 ms
              |-checkout: payment.v3.Payments~   750 ms
         !    | `-payment: payment.v3.Payment~   748 ms
              `-checkout: send order-confirma~  1.00 ms
        >       `-email: process order-confir~  70.0 ms

        > email: process order-confirmations
          max of 3 email process order-confirmations sp~
          not on the critical path
          service.name             email
          cloud.availability_zone  eu-1a
    "#]],
    );
}

#[test]
fn of_several_trees_each_has_a_critical_path() {
    let spans = vec![
        span("a", "", 0, "GET /", (0, 10)),
        span("b", "gone", 1, "lost", (2, 8)),
        span("c", "b", 1, "child of lost", (3, 4)),
        span("d", "b", 1, "child of lost", (3, 7)),
    ];
    let mut trace = trace(spans);
    trace.path_roots = 2;
    for (at, millis) in [(0, 10), (1, 2), (3, 4)] {
        trace.spans[at].on_path = Some(DurationNanos::from_millis(millis));
    }
    check(
        &trace,
        70,
        &expect![[r#"
        trace 9f0c51d8a4e0427ab6a2f0c4d1e2b3a4
        2026-11-23 19:58:20Z, 10.0 ms, 4 spans, 2 services

          span                        duration 0                       10.0 ms
          frontend: GET /              10.0 ms ###############################
          (parent not stored)
          `-checkout: lost             6.00 ms       ###################
            |-checkout: child of lost  1.00 ms          ----
            `-checkout: child of lost  4.00 ms          #############
          # on the critical path of its tree, - beside it
    "#]],
    );
}

#[test]
fn ranks_from_p95_on_are_coloured() {
    let coloured = waterfall(&ranked(), 110, Style { color: true, ascii: true });
    for shown in ["\x1b[33m  p96.1\x1b[0m", "\x1b[33m  p97.3\x1b[0m", "\x1b[31m p99.99\x1b[0m", "  p40.4 "] {
        assert!(coloured.contains(shown), "{shown:?}");
    }
}
