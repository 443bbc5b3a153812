#!/usr/bin/env python3
"""Real exporters against a server that is killed and restarted every few seconds: what was made, stored, lost, counted.

`restarts.py [NAME...]`, a name being a language or one exporter of it (`python`, `rust-grpc`). All of them send at once, at a
steady rate, spans with a number each, to one server; it dies by kill -9 and by SIGTERM in turn and comes back on its ports.
Then every stored span is exported and every percentile asked for its count, before one more restart and after it.

Prints a line for each exporter. Exits with 1 if a stored span was not counted once, if one was lost by an exporter that sits out
such an absence, or if the server did not stop, start or pass `spandrel check`; with 3 if an exporter could not be built or
installed. Each is built by LANGUAGE/prepare.sh, whose head says what it needs.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PROTOCOLS = {"grpc": "grpc", "http": "http/protobuf", "json": "http/json"}
# The longest absence, in seconds and every 7 s, that an exporter sits out. None: it may lose, which is told and no failure;
# docs/exporters.md says why.
PATIENCE = {
    "python-grpc": 2, "python-http": 2, "go-grpc": None, "go-grpc-patient": 0, "go-http": None,
    "js-grpc": None, "js-http": 2, "js-json": 2, "java-grpc": 2, "java-http": 2,
    "rust-grpc": None, "rust-grpc-patient": None, "rust-http": None, "rust-http-patient": 2,
    "collector-grpc": 2, "collector-http": 2,
}
# What the patient ones are told beyond the defaults; those of Rust are told in their program.
TOLD = {"go-grpc-patient": {"OTEL_EXPORTER_OTLP_TIMEOUT": "30000"}}
NEEDS = {"collector": ["python"]}
START_SECONDS_MAX = STOP_SECONDS_MAX = 30
# A sender may retry this long after its last span; a Collector waits up to 30 s between two attempts.
LINGER_SECONDS_MAX = 100
Row = collections.namedtuple("Row", "made stored repeats counted complete")


class Broken(Exception):
    """The run cannot go on."""


def free_ports(n):
    """Ports that nobody listens on, below those the kernel gives to clients: one of those, calling a dead server, could take
    the server's own port."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = []
    for port in random.sample(range(lowest - 10_000, lowest), 200):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == n:
            return found
    raise Broken(f"no {n} free ports below {lowest}")


class Server:
    """The server under test: the same directory and ports in every life."""

    def __init__(self, binary, work):
        self.binary, self.data, self.log = binary, work / "data", open(work / "server.log", "ab")
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self.process, self.start_seconds, self.stop_seconds, self.kills, self.repeats = None, [], [], 0, 0

    def url(self, protocol):
        return "http://" + self.addresses[0 if protocol == "grpc" else 1]

    def start(self):
        grpc, http, query = self.addresses
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [self.binary, "serve", "--log-format", "json", "--data-dir", self.data,
             "--otlp-grpc", grpc, "--otlp-http", http, "--http", query],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        while time.monotonic() < begin + START_SECONDS_MAX:
            if self.process.poll() is not None:
                raise Broken(f"the server ended with {self.process.returncode}")
            try:
                self.get("/ready")
                self.start_seconds.append(time.monotonic() - begin)
                return
            except OSError:
                time.sleep(0.01)
        raise Broken(f"the server was not ready in {START_SECONDS_MAX} s")

    def stop(self, how):
        name = "spandrel_ingest_requests_repeated_total "
        self.repeats += sum(int(line.removeprefix(name)) for line in self.get("/metrics").decode().splitlines()
                            if line.startswith(name))
        begin = time.monotonic()
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise Broken(f"the server did not end in {STOP_SECONDS_MAX} s after {how.name}")
        if how == signal.SIGTERM:
            self.stop_seconds.append(time.monotonic() - begin)
            if self.process.returncode != 0:
                raise Broken(f"after SIGTERM the server ended with {self.process.returncode}")
        else:
            self.kills += 1

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.addresses[2]}{path}", timeout=20) as response:
            return response.read()

    def counted(self, service, since):
        """How many spans of the service its percentiles stand on, and whether the answer calls itself complete."""
        query = urllib.parse.urlencode({"service": service, "q": 0.5, "start": int(since), "exemplars": 0})
        try:
            answer = json.loads(self.get(f"/spandrel/v1/percentile?{query}"))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return 0, True
        return answer["count"], answer["coverage"]["complete"]

    def stored(self, service):
        """The number of every stored span, as often as it is stored."""
        export = [self.binary, "export", "--url", f"http://{self.addresses[2]}", "--service", service, "--format", "jsonl"]
        lines = subprocess.run(export, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
        return [int(attribute["value"]["intValue"])
                for line in lines for resource in json.loads(line)["resourceSpans"]
                for scope in resource["scopeSpans"] for span in scope["spans"]
                for attribute in span["attributes"] if attribute["key"] == "n"]

    def check(self):
        done = subprocess.run([self.binary, "check", "--data-dir", self.data], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise Broken(f"spandrel check: {done.stdout}{done.stderr}")


class Sender:
    """A program that makes spans, prints how many once its provider is shut down, and then ends with its input."""

    def __init__(self, name, work, server, args):
        self.name, self.service = name, f"restart-{name}"
        language, kind = name.split("-", 1)
        protocol = kind.split("-")[0]
        self.out, self.err = work / f"{name}.out", work / f"{name}.err"
        environment = {
            "OTEL_SERVICE_NAME": self.service, "OTEL_EXPORTER_OTLP_ENDPOINT": server.url(protocol),
            "OTEL_EXPORTER_OTLP_PROTOCOL": PROTOCOLS[protocol], "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
            "STEADY_SECONDS": str(args.seconds), "STEADY_RATE": str(args.rate),
        }
        if args.delay is not None:
            environment["OTEL_BSP_SCHEDULE_DELAY"] = str(args.delay)
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            # A group of its own: the Collector's program has children.
            self.process = subprocess.Popen(
                [work / language / "steady", kind], env={**os.environ, **environment, **TOLD.get(name, {})},
                stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True)

    def made(self):
        """How many spans it made; `None` while it is at it."""
        said = self.out.read_text()
        if said.endswith("\n"):
            return int(said)
        if self.process.poll() is not None:
            raise Broken(f"{self.name} ended with {self.process.returncode}: {self.err.read_text()[-2000:]}")
        return None

    def release(self):
        self.process.stdin.close()
        self.process.wait(60)


def prepare(names, work):
    """Builds what the names need, unless `work` has it from an earlier run."""
    languages = []
    for language in dict.fromkeys(name.split("-")[0] for name in names):
        languages += [*NEEDS.get(language, []), language]
    for language in dict.fromkeys(languages):
        place = work / language
        said = place / "version"
        if not said.exists():
            place.mkdir(exist_ok=True)
            print(f"preparing {language}", file=sys.stderr, flush=True)
            done = subprocess.run([HERE / language / "prepare.sh", place], stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                print(f"FAIL {language} could not be prepared; is its toolchain here, and its package registry in reach?")
                sys.exit(3)
            said.write_text(done.stdout)
        print(said.read_text().strip())


def disturb(server, senders, args):
    """Kills and restarts the server until every sender is through."""
    begin = time.monotonic()
    deadline = begin + args.seconds + LINGER_SECONDS_MAX
    lives = 0
    while any(sender.made() is None for sender in senders):
        if deadline < time.monotonic():
            raise Broken("still sending: " + ", ".join(sender.name for sender in senders if sender.made() is None))
        if time.monotonic() < begin + (lives + 1) * args.every:
            time.sleep(0.05)
            continue
        server.stop(signal.SIGTERM if lives % 2 else signal.SIGKILL)
        time.sleep(args.down)
        server.start()
        lives += 1


def settle(server, senders, since):
    """Waits for what a Collector still holds; every other sender has sent all it ever will."""
    deadline = time.monotonic() + LINGER_SECONDS_MAX
    waiting = [sender for sender in senders if sender.name.startswith("collector")]
    while waiting and time.monotonic() < deadline:
        time.sleep(0.5)
        waiting = [sender for sender in waiting if server.counted(sender.service, since)[0] < sender.made()]
    for sender in senders:
        sender.release()


def books(server, senders, since):
    rows = {}
    for sender in senders:
        stored = server.stored(sender.service)
        counted, complete = server.counted(sender.service, since)
        rows[sender.name] = Row(sender.made(), len(set(stored)), len(stored) - len(set(stored)), counted, complete)
    return rows


def report(before, after, args):
    """Prints a line for each exporter; returns how many of them break a promise."""
    failures = 0
    print(f"\n{'':4} {'exporter':18} {'made':>7} {'stored':>7} {'lost':>6} {'counted':>8} {'stored twice':>13}")
    for name, row in before.items():
        faults = []
        lost = row.made - row.stored
        if lost != 0 and PATIENCE[name] is not None and args.down <= PATIENCE[name]:
            faults.append(f"lost, although it sits out {PATIENCE[name]} s")
        for when, books in (("", row), (" after the last restart", after[name])):
            if books.counted != row.stored or not books.complete:
                faults.append(f"counted {books.counted}{when}, complete: {books.complete}")
            if books.stored != row.stored:
                faults.append(f"stored {books.stored}{when}")
        verdict = "FAIL" if faults else "ok"
        figures = f"{row.made:7} {row.stored:7} {lost:6} {row.counted:8} {row.repeats:13}"
        print(f"{verdict:4} {name:18} {figures} {'; '.join(faults)}".rstrip())
        failures += bool(faults)
    return failures


def run(names, work, args):
    server, senders = Server(args.binary, work), []
    since = time.time() - 60
    try:
        server.start()
        senders += [Sender(name, work, server, args) for name in names]
        disturb(server, senders, args)
        settle(server, senders, since)
        before = books(server, senders, since)
        server.stop(signal.SIGTERM)
        server.start()
        after = books(server, senders, since)
        server.stop(signal.SIGTERM)
        server.check()
    finally:
        for sender in senders:
            if sender.process.poll() is None:
                os.killpg(sender.process.pid, signal.SIGKILL)
                sender.process.wait(10)
        if server.process and server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)
    failures = report(before, after, args)
    ready, ended = (f"{statistics.median(seconds) * 1000:.0f} ms by the median, {max(seconds) * 1000:.0f} ms at most"
                    for seconds in (server.start_seconds, server.stop_seconds))
    print(f"\n{server.kills} times kill -9 and {len(server.stop_seconds) - 2} times SIGTERM, one every {args.every:g} s, then"
          f" {args.down:g} s away\nready in {ready}; ended in {ended}; {server.repeats} requests came again")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="languages or exporters; default all: " + ", ".join(PATIENCE))
    parser.add_argument("--seconds", type=int, default=60, help="how long spans are made [60]")
    parser.add_argument("--rate", type=int, default=50, help="spans a second of each exporter [50]")
    parser.add_argument("--every", type=float, default=7, help="seconds from one kill to the next [7]")
    parser.add_argument("--down", type=float, default=0, help="seconds from the server's end to its start [0]")
    parser.add_argument("--delay", type=int, help="milliseconds a batch waits for more spans [what the SDK does: 5000]")
    parser.add_argument("--work", type=pathlib.Path, help="directory to build in and keep, for the next run [a temporary one]")
    parser.add_argument("--binary", type=pathlib.Path, default=HERE / "../../target/release/spandrel")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    names = [name for name in PATIENCE
             if not args.names or any(name == wanted or name.startswith(wanted + "-") for wanted in args.names)]
    for wanted in args.names:
        if not any(name == wanted or name.startswith(wanted + "-") for name in PATIENCE):
            parser.error(f"no exporter {wanted}; known are {', '.join(PATIENCE)}")
    args.binary = args.binary.resolve()
    if not args.binary.exists():
        parser.error(f"no binary at {args.binary}; run cargo build --release")
    work = (args.work or pathlib.Path(tempfile.mkdtemp())).resolve()
    work.mkdir(exist_ok=True)
    shutil.rmtree(work / "data", ignore_errors=True)
    (work / "server.log").unlink(missing_ok=True)
    try:
        prepare(names, work)
        failures = run(names, work, args)
    except (Broken, OSError, subprocess.SubprocessError) as broken:
        failures = 1
        print(f"FAIL {broken}; the server's last words:")
        print("\n".join((work / "server.log").read_text().splitlines()[-5:]))
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if failures else 0)


main()
