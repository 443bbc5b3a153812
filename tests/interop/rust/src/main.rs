//! Makes numbered spans at a steady rate with the SDK's defaults, and prints how many: `steady grpc|http[-patient]`.
//!
//! The patient ones are told to sit out seconds; by default they retry for less than one.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, RetryPolicy, SpanExporter, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::LevelFilter;

fn exporter(kind: &str) -> Result<SpanExporter, ExporterBuildError> {
    let patient = RetryPolicy::recommended().with_max_retries(7);
    match kind {
        "grpc" => SpanExporter::builder().with_tonic().build(),
        "grpc-patient" => SpanExporter::builder().with_tonic().with_retry_policy(patient).build(),
        "http" => SpanExporter::builder().with_http().build(),
        "http-patient" => SpanExporter::builder().with_http().with_retry_policy(patient).build(),
        other => panic!("no exporter {other}; known are grpc and http, and each with -patient"),
    }
}

fn number(variable: &str) -> u32 {
    std::env::var(variable)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{variable} is a number"))
}

fn main() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _inside = runtime.enter();
    let kind = std::env::args().nth(1).expect("the first argument is the exporter");
    let (seconds, rate) = (number("STEADY_SECONDS"), number("STEADY_RATE"));
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter(&kind).expect("the exporter is built")).build();
    let tracer = provider.tracer("restarts");
    let begin = Instant::now();
    for n in 0..seconds * rate {
        std::thread::sleep((begin + Duration::from_secs(1) * n / rate).saturating_duration_since(Instant::now()));
        let builder = tracer.span_builder("steady").with_kind(SpanKind::Server);
        builder.with_attributes([KeyValue::new("n", i64::from(n))]).start(&tracer).end();
    }
    if let Err(error) = provider.shutdown() {
        eprintln!("{error}");
    }
    println!("{}", seconds * rate);
}
