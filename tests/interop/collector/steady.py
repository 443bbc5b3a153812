"""A Collector with the Python program before it: `steady.py OTELCOL PROGRAM grpc|http`, the last being how the Collector sends.

Prints how many spans the program made, then keeps the Collector alive until its input ends: what is queued is still to be sent.
"""

import os
import pathlib
import socket
import subprocess
import sys
import time

otelcol, program, transport = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as free:
    address = "127.0.0.1:%d" % free.getsockname()[1]
inward = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
outward = {**os.environ, "COLLECTOR_GRPC": address, "COLLECTOR_EXPORTER": f"otlp_{transport}"}
config = pathlib.Path(__file__).with_name("config.yaml")
collector = subprocess.Popen([otelcol, "--config", config], env=outward, stdin=subprocess.DEVNULL, stdout=sys.stderr)
try:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(tuple(address.split(":")[:1]) + (int(address.split(":")[1]),)) == 0:
                break
        time.sleep(0.1)
    subprocess.run([program, "grpc"], env=inward, stdin=subprocess.DEVNULL, check=True)
    sys.stdin.read()
finally:
    collector.terminate()
    collector.wait(timeout=30)
