#!/usr/bin/env python3
"""Asks a real Prometheus the queries of queries.txt about samples.txt, and writes its answers to answers.jsonl.

    tests/promql/record.py            writes the answers
    tests/promql/record.py --check    exits with 1 when they are not those that are written down

Needs `prometheus` and `promtool` (Debian: package prometheus). The server listens on loopback alone, keeps its data in a
temporary directory, and is ended by its process id. Each line of the answers is

    {"query": .., "instant": A, "range": A}

where A is {"error": kind}, {"text": ..}, {"scalar": value}, or {"vector": [[labels, value], ..]}; of a range each value is a
list with one for each instant of the grid, null where there is none. Values are texts, as Prometheus writes them.
"""

import json
import math
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
ANSWERS = HERE / "answers.jsonl"
FIRST_SAMPLE = 1709208003
INTERVAL = 10
PLAIN = r"-?[\d.]+(?:e-?\d+)?"
# Prometheus is up within a second or two.
STARTS_WITHIN_SECS = 60


def samples_of(notation):
    """The values of a line of samples.txt, None for a gap."""
    values = []
    for part in notation.split():
        if match := re.fullmatch(r"_(?:x(\d+))?", part):
            values += [None] * int(match[1] or 1)
        elif match := re.fullmatch(rf"(NaN|-?Inf|{PLAIN})(?:([+-]{PLAIN}))?x(\d+)", part):
            start, step = float(match[1]), float(match[2] or 0)
            values += [start + step * number for number in range(int(match[3]) + 1)]
        else:
            values.append(float(part))
    return values


def number(value):
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(value), repr(value))


def open_metrics():
    lines = []
    for line in (HERE / "samples.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        # Labels may hold spaces, values never hold a bracket.
        end = line.rfind("}") + 1 or line.index(" ")
        for at, value in enumerate(samples_of(line[end:])):
            if value is not None:
                lines.append(f"{line[:end]} {number(value)} {FIRST_SAMPLE + at * INTERVAL}")
    return "\n".join([*lines, "# EOF", ""])


def queries():
    """The settings in the head, and (query, the one that is asked instead, whether it is asked at all)."""
    settings, found, mark = {}, [], None
    for line in (HERE / "queries.txt").read_text().splitlines():
        if line.startswith("#= "):
            name, value = line[3:].split()
            settings[name] = int(value)
        elif line.startswith("#! "):
            mark = line[3:].split(": ", 1)
        elif line and not line.startswith("#"):
            found.append((line, mark))
            mark = None
    return settings, found


class Asked:
    def __init__(self, port, settings):
        self.base = f"http://127.0.0.1:{port}/api/v1/"
        self.settings = settings

    def get(self, path, **params):
        try:
            with urllib.request.urlopen(self.base + path + "?" + urllib.parse.urlencode(params)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def instant(self, query):
        answer = self.get("query", query=query, time=self.settings["instant"])
        if answer["status"] == "error":
            return {"error": answer["errorType"]}
        result = answer["data"]["result"]
        match answer["data"]["resultType"]:
            case "vector":
                series = [[one["metric"], one["value"][1]] for one in result]
                # Elsewhere the order is that of a hash table.
                is_sorted = query.startswith(("sort", "topk(", "bottomk("))
                return {"vector": series if is_sorted else sorted(series, key=str)}
            case "scalar":
                return {"scalar": result[1]}
            case "string":
                return {"text": result[1]}
            case "matrix":
                return {"matrix": len(result)}

    def range(self, query):
        start, end, step = (self.settings[name] for name in ("start", "end", "step"))
        answer = self.get("query_range", query=query, start=start, end=end, step=step)
        if answer["status"] == "error":
            return {"error": answer["errorType"]}
        series = []
        for one in answer["data"]["result"]:
            values = [None] * ((end - start) // step + 1)
            for at, value in one["values"]:
                values[(at - start) // step] = value
                assert (at - start) % step == 0
            series.append([one["metric"], values])
        return {"vector": series}

    def both(self, query):
        return {"instant": self.instant(query), "range": self.range(query)}


def answer(asked, query, mark):
    given = asked.both(query)
    kind = mark and mark[0]
    if kind == "like":
        other = asked.both(mark[1])
        assert other != given, f"marked as different, but is not: {query}"
        given = other
    if kind == "unsupported":
        return {"query": query}
    return {"query": query, **given}


def recorded():
    settings, asked = queries()
    with tempfile.TemporaryDirectory() as dir, socket.socket() as free:
        path = pathlib.Path(dir)
        (path / "samples").write_text(open_metrics())
        (path / "config.yml").write_text("global: {}\n")
        run = ["promtool", "tsdb", "create-blocks-from", "openmetrics", path / "samples", path / "data"]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        run = ["prometheus", f"--config.file={path}/config.yml", f"--storage.tsdb.path={path}/data"]
        run += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y", "--log.level=error"]
        server = subprocess.Popen(run)
        try:
            door = Asked(port, settings)
            wait_for(door)
            version = door.get("status/buildinfo")["data"]["version"]
            lines = [{"prometheus": version}] + [answer(door, query, mark) for query, mark in asked]
        finally:
            server.terminate()
            server.wait()
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def wait_for(door):
    end = time.monotonic() + STARTS_WITHIN_SECS
    while True:
        try:
            if door.get("query", query="1")["status"] == "success":
                return
        except (urllib.error.URLError, ValueError):
            pass
        assert time.monotonic() < end, "prometheus did not start"
        time.sleep(0.1)


def main():
    text = recorded()
    if "--check" not in sys.argv[1:]:
        ANSWERS.write_text(text)
        return 0
    known, new = ANSWERS.read_text().splitlines(), text.splitlines()
    differ = [new for known, new in zip(known, new) if not same(json.loads(known), json.loads(new))]
    if len(known) != len(new):
        differ.append(f"{len(new)} lines, not {len(known)}")
    print("\n".join(differ) or "the answers are those that are written down")
    return 1 if differ else 0


def same(known, new):
    """Whether the numbers are the same to 10^-9: sums over a hash table end in other bits each time."""
    if isinstance(known, dict) and isinstance(new, dict):
        return known.keys() == new.keys() and all(same(value, new[name]) for name, value in known.items())
    if isinstance(known, list) and isinstance(new, list):
        return len(known) == len(new) and all(map(same, known, new))
    try:
        return known == new or math.isclose(float(known), float(new), rel_tol=1e-9)
    except (TypeError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
