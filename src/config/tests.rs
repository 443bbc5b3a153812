use super::*;

fn file(text: &str) -> Result<RawConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spandrel.toml");
    std::fs::write(&path, text).unwrap();
    RawConfig::from_file(&path)
}

#[test]
fn otlp_03_10_15_defaults_listen_on_loopback_alone_and_sync_every_request() {
    let config = RawConfig::default().resolve().unwrap();
    for address in [config.otlp_grpc, config.otlp_http, config.http] {
        assert!(address.ip().is_loopback(), "{address}");
    }
    assert_eq!([config.otlp_grpc, config.otlp_http].map(|address| address.port()), [4317, 4318]);
    assert_eq!((config.ingest.durability, config.body_bytes_max), (Durability::Fsync, 64 << 20));
    assert_eq!(config.zipkin, None);
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let one_day = Retention::All("1d".to_owned());
    let flags = RawConfig { retention: Some(one_day), ..RawConfig::default() };
    let config = flags.or(file("retention = \"2d\"\nmax-disk = \"1GiB\"").unwrap()).resolve().unwrap();
    assert_eq!(config.store.retention, Some(DurationNanos::from_secs(86_400)));
    assert_eq!(config.store.disk_bytes_max, GIB);
    assert_eq!(config.ingest.partition_bytes_max, 64 * MIB);
}

#[test]
fn a_service_may_keep_its_spans_for_another_time_and_a_flag_speaks_of_all_the_others() {
    let rules = "[[retention]]\nkeep = \"3d\"\n[[retention]]\nservice = \"checkout\"\nkeep = \"30d\"";
    let days = |n: u64| DurationNanos::from_secs(n * 86_400);
    let kept = vec![KeepRule { service: "checkout".to_owned(), keep: days(30) }];
    let config = file(rules).unwrap().resolve().unwrap();
    assert_eq!((config.store.retention, &config.store.keep), (Some(days(3)), &kept));
    assert_eq!(config.ingest.retention, Some(days(30)), "late spans of checkout are welcome");
    let flags = RawConfig { retention: Some(Retention::All("1d".to_owned())), ..RawConfig::default() };
    let config = flags.or(file(rules).unwrap()).resolve().unwrap();
    assert_eq!((config.store.retention, &config.store.keep), (Some(days(1)), &kept));
    for (text, why) in [
        ("[[retention]]\nservice = \"a\"\nkeep = \"1d\"\n[[retention]]\nservice = \"a\"\nkeep = \"2d\"", "two"),
        ("[[retention]]\nservice = \"a\"\nkeep = \"soon\"", "retention.keep = \"soon\""),
        ("[[retention]]\nservise = \"a\"\nkeep = \"1d\"", "[[retention]]"),
    ] {
        let error = file(text).and_then(RawConfig::resolve).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn remote_write_finds_out_the_version_and_writes_classic_histograms_unless_told() {
    let of = |text: &str| {
        let url = "remote-write = \"http://127.0.0.1:9090/api/v1/write\"\n";
        file(&format!("{url}{text}")).unwrap().resolve().unwrap().remote_write.map(|one| (one.version, one.histograms))
    };
    assert_eq!(of(""), Some((Version::Auto, Histograms::Classic)));
    let told = "remote-write-version = \"1\"\nremote-write-histograms = \"native\"";
    assert_eq!(of(told), Some((Version::One, Histograms::Native)));
    let told = "remote-write-version = \"2\"\nremote-write-histograms = \"both\"";
    assert_eq!(of(told), Some((Version::Two, Histograms::Both)));
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_line() {
    let error = file("retention = \"2d\"\nretension = \"3d\"").unwrap_err().to_string();
    assert!(error.contains("retension") && error.contains("line 2"), "{error}");
}

#[test]
fn a_bad_value_names_the_setting_and_what_would_be_right() {
    for (text, expected) in [
        ("retention = \"soon\"", "retention = \"soon\" is not a duration above zero, such as 15m, 36h or 7d"),
        ("max-disk = \"0\"", "max-disk = \"0\" is not a size above zero, such as 512MiB or 50GiB"),
        ("durability = \"maybe\"", "durability = \"maybe\" is not \"fsync\" or \"relaxed\""),
        ("http = \"3200\"", "http = \"3200\" is not an IP address with a port, such as 127.0.0.1:4317"),
        ("zipkin = \"on\"", "zipkin = \"on\" is not an IP address with a port, such as 127.0.0.1:4317"),
        ("memory = \"8GiB\"\nbody-bytes-max = \"1GiB\"", "body-bytes-max = \"1GiB\" is not a size of at most 512MiB"),
        (
            "remote-write = \"9090\"",
            "remote-write = \"9090\" is not the address of a receiver, such as http://127.0.0.1:9090/api/v1/write",
        ),
        (
            "remote-write = \"http://a\"\nremote-write-version = \"1.0\"",
            "remote-write-version = \"1.0\" is not \"auto\", \"1\" or \"2\"",
        ),
        (
            "remote-write = \"http://a\"\nremote-write-histograms = \"all\"",
            "remote-write-histograms = \"all\" is not \"classic\", \"native\" or \"both\"",
        ),
        ("remote-write-histograms = \"native\"", "remote-write-histograms needs remote-write"),
        ("remote-write-version = \"2\"", "remote-write-version needs remote-write"),
        ("remote-write-token = \"a\"", "remote-write-token needs remote-write"),
        ("memory = \"8MiB\"", "memory = \"8MiB\" is not a size of at least 64MiB"),
    ] {
        assert_eq!(file(text).unwrap().resolve().unwrap_err().to_string(), expected);
    }
    let small = file("memory = \"128MiB\"\nbody-bytes-max = \"64MiB\"").unwrap().resolve().unwrap_err().to_string();
    assert!(small.contains("raise memory"), "{small}");
}

#[test]
fn peel_dimensions_become_labels_when_they_are_named_and_have_names_of_their_own() {
    let of = |text: &str| file(text).unwrap().resolve();
    let labels = |text: &str| -> Vec<String> {
        let dimensions = of(text).unwrap().store.conventions.metric_dimensions.clone();
        dimensions.into_iter().map(|dimension| dimension.label).collect()
    };
    assert_eq!(labels(""), [""; 0], "none unless they are asked for");
    assert_eq!(labels("metric-dimensions = [\"host.name\", \"cloud.region\"]"), ["host_name", "cloud_region"]);
    assert_eq!(labels("metric-dimensions = [\"all\"]").len(), 7);
    let peel = "peel-dimensions = [\"rack\", \"rack.no\", \"rack-no\", \"le\", \"span.name\"]\n";
    assert_eq!(labels(&format!("{peel}metric-dimensions = [\"rack.no\", \"rack\"]")), ["rack_no", "rack"]);
    for (named, why) in [
        ("\"host.name\"", "\"host.name\", which is none of peel-dimensions: rack, rack.no, rack-no, le, span.name"),
        ("\"rack\", \"\"", "\"\", which is none of peel-dimensions"),
        ("\"rack.no\", \"rack-no\"", "\"rack.no\" and \"rack-no\", which would both be the label rack_no; keep one"),
        ("\"rack\", \"rack\"", "\"rack\" and \"rack\", which would both be the label rack; keep one"),
        ("\"le\"", "\"le\", whose label le means something else; leave it out"),
        ("\"all\"", "\"rack.no\" and \"rack-no\""),
        ("\"span.name\"", "\"span.name\", whose label span_name means something else"),
    ] {
        let error = of(&format!("{peel}metric-dimensions = [{named}]")).unwrap_err().to_string();
        assert!(error.starts_with("metric-dimensions names") && error.contains(why), "{named}: {error}");
    }
}
