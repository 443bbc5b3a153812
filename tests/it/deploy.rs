//! What is shipped for Grafana, Docker, systemd and Kubernetes fits the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::prometheus::sent::{SECOND, Sent, encoded, send};
use crate::support::{ChildServer, TestServer, now};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A server with traces of a minute ago: a shop that fails, and whom it calls.
fn shop() -> TestServer {
    let server = TestServer::new();
    let span = |id, parent, service, kind, status| Sent {
        trace: id / 10,
        id,
        parent,
        namespace: "",
        service,
        name: "work".to_owned(),
        kind,
        status,
        start: now().0 - 60 * SECOND,
        latency: Some(SECOND / 5),
        attributes: Vec::new(),
    };
    for no in 1..20 {
        let first = no * 10;
        send(
            &server,
            &[
                span(first, 0, "shop", 2, 2),
                span(first + 1, first, "shop", 3, 2),
                span(first + 2, first + 1, "payment", 2, 2),
            ],
        );
    }
    server
}

/// A question of a panel or of the data source, as it is sent.
fn in_grafana(query: &str) -> String {
    let with = [
        ("$$__tags", r#"service="shop""#),
        ("$$__rate_interval", "1m"),
        ("$__rate_interval", "1m"),
        ("$__range", "1h"),
        ("$__interval", "30s"),
        ("$service", "shop"),
    ];
    let query = with.into_iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "a variable that nobody gives: {query}");
    query
}

/// The answer, if there is one, of PromQL over the last hour and of now.
fn of_promql(server: &TestServer, query: &str) -> [Value; 2] {
    let (end, query) = (now().0 / SECOND, in_grafana(query));
    let (start, end) = ((end - 3_600).to_string(), end.to_string());
    let range = encoded(&[("query", &query), ("start", &start), ("end", &end), ("step", "15")]);
    let instant = encoded(&[("query", &query)]);
    [format!("query_range?{range}"), format!("query?{instant}")].map(|path| {
        let answer = server.get(&format!("/api/v1/{path}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["data"]["result"].clone()
    })
}

/// How many traces or series a TraceQL query finds.
fn of_traceql(server: &TestServer, query: &str) -> usize {
    let (query, end) = (in_grafana(query), now().0 / SECOND);
    let text = encoded(&[("q", &query), ("start", &(end - 3_600).to_string()), ("end", &end.to_string())]);
    let (path, list) = if query.contains('|') { ("metrics/query_range", "series") } else { ("search", "traces") };
    let answer = server.get(&format!("/api/{path}?{text}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()[list].as_array().map_or(0, Vec::len)
}

struct Dashboard {
    name: String,
    whole: Value,
    panels: Vec<Value>,
}

fn dashboards() -> Vec<Dashboard> {
    let dir = std::fs::read_dir(path("deploy/grafana/dashboards")).expect("it is there");
    let mut dashboards: Vec<Dashboard> = dir
        .map(|entry| {
            let name = entry.expect("it is readable").file_name().to_string_lossy().into_owned();
            let text = read(&format!("deploy/grafana/dashboards/{name}"));
            let whole: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut panels = Vec::new();
            panels_of(&whole, &mut panels);
            Dashboard { name, whole, panels }
        })
        .collect();
    dashboards.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(dashboards.len(), 4);
    dashboards
}

fn panels_of(of: &Value, found: &mut Vec<Value>) {
    for panel in of["panels"].as_array().into_iter().flatten() {
        found.push(panel.clone());
        panels_of(panel, found);
    }
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().map_or(&[], Vec::as_slice)
}

/// Values of a key of YAML lines, without quotes.
fn yaml_values(text: &str, key: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        let value = line.trim_start_matches(['{', ' ']).strip_prefix(key)?.strip_prefix(':')?.trim();
        let quote = value.chars().next().filter(|first| ['"', '\''].contains(first));
        let inner = quote.and_then(|quote| value.strip_prefix(quote)?.rsplit_once(quote));
        Some(
            inner
                .map_or_else(|| value.split(" #").next().unwrap_or_default().to_owned(), |(inner, _)| inner.to_owned()),
        )
    };
    text.lines().filter_map(of_line).collect()
}

const PROVISIONED: &str = "deploy/grafana/provisioning/datasources/spandrel.yaml";

#[test]
fn prov_02_dashboards_have_ids_of_their_own_and_the_provisioned_data_sources() {
    let provisioned = yaml_values(&read(PROVISIONED), "uid");
    assert_eq!(provisioned, ["spandrel-prom", "spandrel-tempo"]);
    let mut uids = BTreeSet::new();
    for Dashboard { name, whole, panels } in dashboards() {
        assert!(uids.insert(whole["uid"].as_str().expect("a uid").to_owned()), "{name}");
        assert!(whole["id"].is_null(), "{name}: Grafana gives the id");
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{name}");
        let variables = whole["templating"]["list"].as_array().into_iter().flatten();
        let of_variables: Vec<String> =
            variables.clone().map(|one| format!("${{{}}}", one["name"].as_str().expect("a name"))).collect();
        let sources =
            variables.filter(|one| one["type"] == "query").chain(&panels).chain(panels.iter().flat_map(targets));
        for source in sources.map(|one| &one["datasource"]) {
            let uid = source["uid"].as_str().unwrap_or_else(|| panic!("{name}: a panel without a data source"));
            let kind = if uid == "spandrel-tempo" { "tempo" } else { "prometheus" };
            assert!(provisioned.iter().chain(&of_variables).any(|known| known == uid), "{name}: {uid}");
            assert_eq!(source["type"], kind, "{name}");
        }
        for panel in &panels {
            let refs: BTreeSet<&str> = targets(panel).iter().filter_map(|target| target["refId"].as_str()).collect();
            assert_eq!(refs.len(), targets(panel).len(), "{name}: {}", panel["title"]);
        }
    }
    let destination = read(PROVISIONED);
    assert!(destination.contains("- name: trace_id\n          datasourceUid: spandrel-tempo\n"));
    assert_eq!(yaml_values(&destination, "httpMethod"), ["POST"]);
}

#[test]
fn prov_05_every_panel_is_answered_and_shows_a_shop() {
    let server = shop();
    for Dashboard { name, panels, .. } in dashboards() {
        for panel in &panels {
            for target in targets(panel) {
                let place = format!("{name}, {}, {}", panel["title"], target["refId"]);
                let is_own = target["datasource"]["uid"] == "${prometheus}";
                if let Some(expr) = target["expr"].as_str() {
                    let [range, instant] = of_promql(&server, expr);
                    let shown = if target["instant"] == true { instant } else { range };
                    assert!(is_own != shown.as_array().is_some_and(|series| !series.is_empty()), "{place}: {shown}");
                } else if let Some(query) = target["query"].as_str() {
                    assert!(0 < of_traceql(&server, query), "{place}");
                } else {
                    assert_eq!(target["queryType"], "serviceMap", "{place}");
                }
            }
            if panel["type"] == "heatmap" {
                heatmap(panel);
            }
        }
    }
}

/// Buckets are drawn as they are: by `le` alone, or of a native histogram.
fn heatmap(panel: &Value) {
    assert_eq!(panel["options"]["calculate"], false, "{panel}");
    for target in targets(panel) {
        let expr = target["expr"].as_str().expect("an expression");
        let is_classic = expr.starts_with("sum by (le) (rate(traces_spanmetrics_latency_bucket{");
        let is_native = expr.starts_with("sum(rate(traces_spanmetrics_latency{");
        assert!(is_classic || is_native, "{expr}");
        assert_eq!((&target["format"], &target["exemplar"]), (&"heatmap".into(), &true.into()), "{expr}");
        assert!(!is_classic || target["legendFormat"] == "{{le}}", "{expr}");
    }
}

#[test]
fn every_metric_of_the_collectors_dashboard_is_one_of_its_own() {
    let server = TestServer::new();
    let metrics = server.get("/metrics").text();
    let mut names = BTreeSet::new();
    for Dashboard { panels, .. } in dashboards() {
        for expr in panels.iter().flat_map(targets).filter_map(|target| target["expr"].as_str()) {
            let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.extend(words.filter(|word| word.starts_with("spandrel_")).map(str::to_owned));
        }
    }
    assert!(15 < names.len(), "{names:?}");
    for name in names {
        let (family, kind) = name.strip_suffix("_total").map_or((name.as_str(), "gauge"), |name| (name, "counter"));
        assert!(metrics.contains(&format!("# TYPE {family} {kind}\n")), "{name} is not in /metrics");
        assert!(metrics.contains(&format!("# HELP {family} ")), "{name}");
    }
}

#[test]
fn sg_11_from_a_trace_to_its_metrics_each_provisioned_query_finds_the_shop() {
    let server = shop();
    let queries = yaml_values(&read(PROVISIONED), "query");
    assert_eq!(queries.len(), 3);
    for query in &queries {
        let [range, instant] = of_promql(&server, query);
        for series in [range, instant] {
            assert_eq!(series.as_array().map(Vec::len), Some(1), "{query}");
        }
    }
    let services = dashboards().into_iter().find(|dashboard| dashboard.name == "service.json").expect("it is shipped");
    let variable = &services.whole["templating"]["list"][0];
    assert_eq!(variable["query"]["query"], "label_values(traces_spanmetrics_calls_total, service)");
    let values = server.json("/api/v1/label/service/values?match[]=traces_spanmetrics_calls_total");
    assert_eq!(values["data"], serde_json::json!(["payment", "shop"]));
}

/// The arguments behind the program's name, to run here: other ports, another directory.
fn here(args: &[String], dir: &Path) -> Vec<String> {
    let mut here = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        here.push(arg.clone());
        match arg.as_str() {
            "--data-dir" => {
                assert_eq!(args.next().map(String::as_str), Some("/var/lib/spandrel"));
                here.push(dir.display().to_string());
            }
            "--otlp-grpc" | "--otlp-http" | "--http" => {
                let address = args.next().expect("an address");
                here.push(format!("{}:0", address.rsplit_once(':').expect("a port").0));
            }
            _ => {}
        }
    }
    here
}

#[test]
fn the_program_understands_the_command_lines_of_docker_and_systemd() {
    let dockerfile = read("deploy/docker/Dockerfile");
    let cmd = dockerfile.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a CMD");
    let docker: Vec<String> = serde_json::from_str(cmd).expect("the form that needs no shell");
    let unit = read("deploy/systemd/spandrel.service");
    let exec = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("an ExecStart");
    let systemd: Vec<String> = exec.split(' ').skip(1).map(str::to_owned).collect();
    let own = [("--otlp-grpc", "127.0.0.1:0"), ("--otlp-http", "127.0.0.1:0"), ("--http", "127.0.0.1:0")];
    for args in [docker, systemd] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut args = here(&args, dir.path());
        for (flag, address) in own {
            if !args.iter().any(|arg| arg == flag) {
                args.extend([flag.to_owned(), address.to_owned()]);
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_spandrel"));
        let server = ChildServer::from(command.args(["--log-format", "json"]).args(&args));
        let server = server.unwrap_or_else(|said| panic!("{args:?}: {said}"));
        assert_eq!(server.get("/ready").status, 200, "{args:?}");
    }
}

#[test]
fn the_image_is_built_from_what_is_in_the_repository() {
    let dockerfile = read("deploy/docker/Dockerfile");
    let copied =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    for line in copied {
        let words: Vec<&str> = line.split(' ').collect();
        for name in &words[..words.len() - 1] {
            assert!(path(name).exists(), "{name}");
        }
    }
    let compose = read("deploy/docker/compose.yaml");
    for mounted in ["../grafana/provisioning", "../grafana/dashboards"] {
        assert!(
            compose.contains(&format!("- {mounted}:/")) && path("deploy/docker").join(mounted).is_dir(),
            "{mounted}"
        );
    }
    let dashboards = yaml_values(&read("deploy/grafana/provisioning/dashboards/spandrel.yaml"), "path");
    assert!(compose.contains(&format!("../grafana/dashboards:{}:ro", dashboards[0])));
    for url in yaml_values(&read(PROVISIONED), "url") {
        assert_eq!(url, "http://spandrel:3200", "the service of compose, its port for questions, no path");
    }
}

#[test]
fn ports_and_probes_are_those_of_the_manual() {
    let manual = read("README.md");
    let port = |key: &str| {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{key}` | `127.0.0.1:"))).expect("a row");
        row.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('`').next()).expect("a port").to_owned()
    };
    let [grpc, http, questions] = ["otlp-grpc", "otlp-http", "http"].map(port);
    let dockerfile = read("deploy/docker/Dockerfile");
    assert!(dockerfile.contains(&format!("EXPOSE {grpc} {http} {questions}\n")));
    for (flag, port) in [("otlp-grpc", &grpc), ("otlp-http", &http), ("http", &questions)] {
        assert!(dockerfile.contains(&format!(r#""--{flag}", "0.0.0.0:{port}""#)), "{flag}");
    }
    let compose = read("deploy/docker/compose.yaml");
    let kubernetes = read("deploy/kubernetes/spandrel.yaml");
    for (name, port) in [("otlp-grpc", &grpc), ("otlp-http", &http), ("http", &questions)] {
        assert!(compose.contains(&format!(r#"- "127.0.0.1:{port}:{port}""#)), "{name}");
        assert!(kubernetes.contains(&format!("- {{ name: {name}, port: {port}, targetPort: {name} }}")), "{name}");
        assert!(kubernetes.contains(&format!("- {{ name: {name}, containerPort: {port} }}")), "{name}");
    }
    let server = TestServer::new();
    let probes: Vec<&str> =
        kubernetes.split("httpGet: { path: ").skip(1).filter_map(|rest| rest.split(',').next()).collect();
    assert_eq!(probes, ["/ready", "/healthz"]);
    for probe in probes {
        assert_eq!(server.get(probe).status, 200, "{probe}");
    }
}
