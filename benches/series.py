#!/usr/bin/env python3
"""What many series cost a server: memory, and the time of a percentile.

    cargo build --release
    python3 benches/series.py --series 10000 --spans 1000000 -- --partition-size 8MiB

Starts a server of its own on loopback with a temporary directory, sends spans whose times lie in the last ten minutes, spread
evenly over the series, and asks 300 percentiles. Compare with `--series 10`. What stands behind `--` goes to the server.
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

BINARY = pathlib.Path(__file__).parent.parent / "target/release/spandrel"
SERVICES = 100
SPANS_PER_SERVICE = 100
SERVICES_PER_REQUEST = 5
ATTEMPTS = 50
QUESTIONS = 300


class Server:
    def __init__(self, directory, arguments):
        doors = [flag for door in ("otlp-grpc", "otlp-http", "http") for flag in ("--" + door, "127.0.0.1:0")]
        command = [BINARY, "serve", "--log-format", "json", "--data-dir", directory, *doors, *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = {}
        for line in self.process.stderr:
            fields = json.loads(line)["fields"]
            if fields.get("message") == "listening":
                self.address[fields["name"]] = fields["address"]
            if fields.get("message") == "ready":
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def memory_mib(self, key):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024


def request(chance, series, first_id, now):
    names = max(1, series // SERVICES)

    def span(number):
        start = now - chance.randrange(600) * 10**9
        return {
            "traceId": f"{number + 10**12:032x}",
            "spanId": f"{number + 1:016x}",
            "name": f"operation {chance.randrange(names)}",
            "kind": 2,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + int(chance.expovariate(1) * 2e7) + 1000),
        }

    def service(at):
        name = f"service-{chance.randrange(min(SERVICES, series))}"
        first = first_id + at * SPANS_PER_SERVICE
        return {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]},
            "scopeSpans": [{"spans": [span(number) for number in range(first, first + SPANS_PER_SERVICE)]}],
        }

    return json.dumps({"resourceSpans": [service(at) for at in range(SERVICES_PER_REQUEST)]}).encode()


def send(url, body):
    for _ in range(ATTEMPTS):
        try:
            post = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            return urllib.request.urlopen(post).read()
        except urllib.error.HTTPError as refused:
            time.sleep(float(refused.headers.get("Retry-After") or 1))
    raise SystemExit("the server refuses for too long")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("serve", nargs="*", help="arguments of the server")
    args = parser.parse_args()
    chance, now = random.Random(1), time.time_ns()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, args.serve)
        try:
            for first in range(0, args.spans, SERVICES_PER_REQUEST * SPANS_PER_SERVICE):
                send(f"http://{server.address['otlp-http']}/v1/traces", request(chance, args.series, first, now))
            times = []
            for _ in range(QUESTIONS):
                service = f"service-{chance.randrange(min(SERVICES, args.series))}"
                path = f"/spandrel/v1/percentile?service={service}&start=-20m&q=0.99&exemplars=5"
                began = time.monotonic()
                urllib.request.urlopen(f"http://{server.address['http']}{path}").read()
                times.append((time.monotonic() - began) * 1e3)
            times.sort()
            print(f"{args.series} series, {args.spans} spans")
            print(f"percentile p50 / p99, ms   {times[len(times) // 2]:.1f} / {times[len(times) * 99 // 100]:.1f}")
            print(f"RSS / peak RSS, MiB        {server.memory_mib('VmRSS'):.0f} / {server.memory_mib('VmHWM'):.0f}")
        finally:
            server.process.terminate()
            server.process.wait()


main()
