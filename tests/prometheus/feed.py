#!/usr/bin/env python3
"""Spandrel beside a real Prometheus: remote write into it, scrapes by it (text, and protobuf with native histograms), and `promtool`
as a client of ours.

    cargo build --release && tests/prometheus/feed.py

Needs the programs `prometheus` and `promtool` (Debian package `prometheus`, which root gets installed); exit status 3 without them.
`PROMETHEUS=/path/to/another` is run instead; one that knows remote write 2.0 (from 3.0 on) is then written 2.0. `SPANDREL` names
our own program.
Everything listens on loopback and ends with this program.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVER = os.environ.get("SPANDREL", os.path.join(ROOT, "target/release/spandrel"))
PROMETHEUS = os.environ.get("PROMETHEUS", "prometheus")
N_SPANS = 60
# What is late is waited for 30 s, samples are 30 s apart, and a busy machine takes its time.
WITHIN_SECS = 180


def install():
    if not shutil.which(PROMETHEUS) and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "prometheus"]):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if not (shutil.which(PROMETHEUS) and shutil.which("promtool")):
        print("prometheus and promtool are not installed")
        sys.exit(3)


def major_version():
    said = subprocess.run([PROMETHEUS, "--version"], capture_output=True, text=True, check=True)
    # A program of `go install` calls itself by no version.
    found = re.search(r"version (\d+)\.", said.stdout + said.stderr)
    return int(found.group(1)) if found else 3


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=30) as answer:
        return answer.read()


def query(port, text):
    return json.loads(get(f"http://127.0.0.1:{port}/api/v1/query", query=text))["data"]["result"]


def until(what, ask):
    """Asks again until there is a true answer."""
    end = time.monotonic() + WITHIN_SECS
    while time.monotonic() < end:
        try:
            found = ask()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(1)
    raise SystemExit(f"FAIL {what}: not within {WITHIN_SECS} s")


class Processes:
    def __init__(self, directory):
        self.directory, self.all = directory, []

    def start(self, name, command):
        log = open(os.path.join(self.directory, name + ".log"), "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.all.append(process)
        return process

    def end(self):
        for process in self.all:
            process.terminate()
        for process in self.all:
            process.wait()

    def prometheus(self, name, target, features):
        port = free_port()
        config = os.path.join(self.directory, name + ".yml")
        with open(config, "w") as out:
            job = {"job_name": "spans", "metrics_path": "/metrics/spans", "scrape_interval": "2s", "honor_labels": True}
            job["static_configs"] = [{"targets": [target]}]
            if major_version() >= 3 and "native-histograms" in features:
                job["scrape_native_histograms"] = True
            json.dump({"scrape_configs": [job]}, out)
        flags = [f"--config.file={config}", f"--storage.tsdb.path={self.directory}/{name}", f"--web.listen-address=127.0.0.1:{port}"]
        self.start(name, [PROMETHEUS, *flags, "--web.enable-remote-write-receiver", f"--enable-feature={features}"])
        until(f"{name} is ready", lambda: get(f"http://127.0.0.1:{port}/-/ready"))
        return port

    def spandrel(self, http, otlp, receiver):
        flags = ["--data-dir", os.path.join(self.directory, "data"), "--http", f"127.0.0.1:{http}"]
        flags += ["--otlp-http", f"127.0.0.1:{otlp}", "--otlp-grpc", "127.0.0.1:0"]
        flags += ["--remote-write", f"http://127.0.0.1:{receiver}/api/v1/write", "--remote-write-histograms", "both"]
        process = self.start("spandrel", [SERVER, "serve", *flags])
        until("spandrel is ready", lambda: get(f"http://127.0.0.1:{http}/ready"))
        return process


def latencies(n):
    """Seconds: 3 ms, 6 ms, .."""
    return [(no + 1) * 0.003 for no in range(n)]


def send(otlp, n):
    """Spans of these latencies; every fifth failed."""
    now = time.time_ns()

    def span(no):
        start, length = now - no * 1_000_000, (no + 1) * 3_000_000
        return {
            "traceId": os.urandom(16).hex(), "spanId": os.urandom(8).hex(), "name": 'GET "/"', "kind": 2,
            "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + length),
            "status": {"code": 2 if no % 5 == 0 else 0},
        }

    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span(no) for no in range(n)]}]}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{otlp}/v1/traces", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).read()


def number(port, text):
    result = query(port, text)
    return float(result[0]["value"][1]) if result else None


def check(what, holds):
    if not holds:
        raise SystemExit(f"FAIL {what}")
    print(f"ok {what}")


def promtool(*args):
    done = subprocess.run(["promtool", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"FAIL promtool {' '.join(args)}: {done.stdout}{done.stderr}")
    return done.stdout


def check_buckets(what, port, n):
    """Every native bucket against the latencies that were sent; one within 0.1 % of an edge may be in the bucket beside it."""
    result = query(port, "sum(traces_spanmetrics_latency)")
    check(f"{what}: one native histogram", len(result) == 1 and "histogram" in result[0])
    histogram, sent = result[0]["histogram"][1], latencies(n)
    check(f"{what}: a native histogram counts every span", float(histogram["count"]) == n)
    check(f"{what}: and their sum", abs(float(histogram["sum"]) / sum(sent) - 1) < 0.001)
    so_far = 0
    for _, lower, upper, count in histogram["buckets"]:
        so_far += float(count)
        at_least, at_most = (sum(one <= float(upper) * of for one in sent) for of in (0.999, 1.001))
        if not (at_least <= so_far <= at_most and float(upper) < 1.1 * float(lower)):
            raise SystemExit(f"FAIL {what}: {so_far} up to {upper}, of {at_least} to {at_most}")
    check(f"{what}: each of {len(histogram['buckets'])} native buckets is what was sent", so_far == n)


def exemplars_open(port, http, name):
    now = time.time()
    form = {"query": name, "start": now - 900, "end": now}
    series = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query_exemplars", **form))["data"]
    ids = {one["labels"]["trace_id"] for each in series for one in each["exemplars"]}
    return bool(ids) and all(get(f"http://127.0.0.1:{http}/api/v2/traces/{trace}") for trace in ids)


def main():
    install()
    with tempfile.TemporaryDirectory() as directory:
        processes = Processes(directory)
        try:
            run(processes)
        finally:
            processes.end()


def run(processes):
    http, otlp, nowhere = free_port(), free_port(), free_port()
    receiver = processes.prometheus("receiver", f"127.0.0.1:{nowhere}", "exemplar-storage,native-histograms")
    server = processes.spandrel(http, otlp, receiver)
    text = processes.prometheus("text", f"127.0.0.1:{http}", "exemplar-storage")
    native = processes.prometheus("native", f"127.0.0.1:{http}", "exemplar-storage,native-histograms")
    send(otlp, N_SPANS)

    calls = "sum(traces_spanmetrics_calls_total)"
    for name, port in (("remote write", receiver), ("a scrape of the text", text), ("a scrape of the protobuf", native)):
        until(f"{name} brings every span", lambda port=port: number(port, calls) == N_SPANS)
        print(f"ok {name} brings every span")
        failed = number(port, 'sum(traces_spanmetrics_calls_total{status_code="STATUS_CODE_ERROR"})')
        check(f"{name}: spans that failed", failed == N_SPANS / 5)
        edges = number(port, "sum(traces_service_graph_request_total)")
        check(f"{name}: calls of the service graph", edges == N_SPANS)
    for name, port in (("remote write", receiver), ("a scrape of the text", text)):
        half = number(port, 'sum(traces_spanmetrics_latency_bucket{le="0.067108863"})')
        check(f"{name}: spans of up to 67 ms in their bucket", half == 67_108_863 // 3_000_000)
        check(f"{name}: exemplars open", exemplars_open(port, http, "traces_spanmetrics_latency_bucket"))
    for name, port in (("remote write", receiver), ("a scrape of the protobuf", native)):
        check_buckets(name, port, N_SPANS)
        median = number(port, "histogram_quantile(0.5, sum(traces_spanmetrics_latency))")
        check(f"{name}: the median is within a bucket of 9 % ({median})", 0.09 / 1.1 < median < 0.09 * 1.1)
    log = open(os.path.join(processes.directory, "spandrel.log")).read()
    version = 1 if "does not know remote write 2.0" in log else 2
    check(f"remote write {version}.0 was written", version == (2 if major_version() >= 3 else 1) and "was refused" not in log)

    address = f"http://127.0.0.1:{http}"
    instant = promtool("query", "instant", address, calls)
    check(f"promtool query instant: {instant.strip()}", f"=> {N_SPANS} @" in instant)
    now = int(time.time())
    ranged = promtool("query", "range", f"--start={now - 300}", f"--end={now}", "--step=60s", address, calls)
    check("promtool query range", f"{N_SPANS} @" in ranged)
    series = promtool("query", "series", "--match=traces_spanmetrics_calls_total", address)
    check("promtool query series", 'service="shop"' in series)
    check("promtool query labels", "shop" in promtool("query", "labels", address, "service"))
    # It reads the older text format alone.
    plain = urllib.request.Request(f"{address}/metrics", headers={"Accept": "text/plain"})
    own = urllib.request.urlopen(plain, timeout=30).read().decode()
    linted = subprocess.run(["promtool", "check", "metrics"], input=own, capture_output=True, text=True, check=False)
    check(f"promtool check metrics: {(linted.stdout + linted.stderr).strip() or 'nothing to say'}", linted.returncode == 0)

    # Killed, and up again: the counters begin anew, and nothing that was not written before is missing.
    position = os.path.join(processes.directory, "data", "remote-write")
    until("the position is kept", lambda: os.path.exists(position))
    server.kill()
    server.wait()
    before = open(position).read()
    processes.spandrel(http, otlp, receiver)
    send(otlp, N_SPANS // 2)
    until("after a restart the new spans are written", lambda: number(receiver, calls) == N_SPANS // 2)
    until("in the native histograms too", lambda: number(receiver, "histogram_count(sum(traces_spanmetrics_latency))") == N_SPANS // 2)
    check_buckets("after a restart", receiver, N_SPANS // 2)
    # By 1.0 a Prometheus looks for the series of an exemplar before it adds the histogram: it drops the first one of a series.
    check("exemplars of native histograms open", exemplars_open(receiver, http, "traces_spanmetrics_latency"))
    increase = number(receiver, "histogram_count(sum(increase(traces_spanmetrics_latency[15m])))")
    check(f"the native histograms began anew ({increase})", increase >= N_SPANS // 2)
    check("after a restart remote write went on behind where it was", int(before.split()[-1]) < int(open(position).read().split()[-1]))


if __name__ == "__main__":
    main()
