#!/usr/bin/env python3
"""What a segment of many millions costs the program: importing it, starting with it, adding one user to it.

A release build is measured: `make bench-segments`. Sizes in millions: --millions 10 100. Prints a table."""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD_PROGRAM", ROOT / "target/release/switchyard"))
YAML = """
server: {{ threads: 2 }}
listeners: [{{ address: "127.0.0.1:0" }}]
admin: {{ address: "127.0.0.1:0" }}
pools: {{ stable: {{ endpoints: ["127.0.0.1:9"] }}, canary: {{ endpoints: ["127.0.0.1:9"] }} }}
routes: [{{ rollout: shop }}]
access_log: {{ path: "off" }}
store: {{ embedded: {{ path: "{store}" }} }}
rollouts:
  shop:
    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}
    targets: [{{ segment: many, release: canary }}]
"""
SINGLES = 200


def mixed(n):
    mask = (1 << 64) - 1
    n = (n * 0x9E3779B97F4A7C15) & mask
    n = ((n ^ (n >> 30)) * 0xBF58476D1CE4E5B9) & mask
    n = ((n ^ (n >> 27)) * 0x94D049BB133111EB) & mask
    return n ^ (n >> 31)


def write(path, kind, count):
    """Lines of `count` ids: numbers from 64 bits, or UUIDs."""
    with open(path, "w", buffering=1 << 20) as out:
        for first in range(0, count, 100_000):
            some = range(first, min(count, first + 100_000))
            if kind == "numbers":
                lines = [str(mixed(n)) for n in some]
            else:
                lines = []
                for n in some:
                    digits = f"{mixed(n):016x}{mixed(~n & (1 << 64) - 1):016x}"
                    lines.append("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))
            out.write("\n".join(lines) + "\n")


class Program:
    def __init__(self, folder):
        config = folder / "switchyard.yaml"
        config.write_text(YAML.format(store=folder / "switchyard.db"))
        self.began = time.perf_counter()
        log = open(folder / "errors", "w")
        self.process = subprocess.Popen([PROGRAM, "serve", "-c", config], stdout=subprocess.DEVNULL, stderr=log)
        errors = folder / "errors"
        while True:
            line = next((l for l in errors.read_text().splitlines() if l.startswith("listening: admin ")), None)
            if line:
                break
            if self.process.poll() is not None:
                sys.exit(errors.read_text())
            time.sleep(0.002)
        host, port = line.split()[-1].rsplit(":", 1)
        self.host, self.port = host, int(port)
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.002)
        self.ready = time.perf_counter() - self.began

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text

    def memory(self, key):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def anonymous(self):
        return self.memory("RssAnon")

    def end(self):
        self.process.terminate()
        self.process.wait()


def put(program, path, revision):
    headers = {"Content-Type": "text/plain"}
    if revision:
        headers["If-Match"] = f'"{revision}"'
    began = time.perf_counter()
    with open(path, "rb") as lines:
        headers["Content-Length"] = str(os.path.getsize(path))
        status, text = program.ask("PUT", "/api/v1/segments/many", lines, headers)
    took = time.perf_counter() - began
    if status != 200:
        sys.exit(f"PUT: {status} {text.decode()}")
    return took, json.loads(text)["revision"]


def fsync(folder):
    """The median of a write of a few pages that is synced, as the disk takes it."""
    times = []
    with open(folder / "synced", "wb") as file:
        for _ in range(SINGLES):
            began = time.perf_counter()
            file.write(b"x" * 12_288)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(kind, count, folder):
    lines = folder / "lines.txt"
    write(lines, kind, count)
    program = Program(folder)
    revision = json.loads(program.ask("GET", "/api/v1/segments")[1])["segments"]["many"]["revision"]
    before = program.memory("VmRSS")
    took, revision = put(program, lines, revision)
    peak = program.memory("VmHWM") - before
    one = json.loads(program.ask("GET", "/api/v1/segments/many")[1])
    size = one["roster"]["bytes"]
    singles = []
    connection = http.client.HTTPConnection(program.host, program.port)
    for n in range(SINGLES):
        body = json.dumps({"users": [f"late-{n}"]})
        began = time.perf_counter()
        connection.request("POST", "/api/v1/segments/many/add", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["live"]
        singles.append(time.perf_counter() - began)
    program.end()
    starts = []
    for _ in range(3):
        program = Program(folder)
        starts.append(program.ready)
        program.end()
    lines.unlink()
    print(f"{kind}, {count:,}")
    print(f"  bytes an id                     {size / one['roster']['users']:9.2f}")
    print(f"  import, durable and published   {took:9.2f} s")
    print(f"  peak memory over the final      {peak / size:9.2f} times ({peak >> 20} MiB over what was before)")
    print(f"  start, ready                    {statistics.median(starts) * 1000:9.0f} ms")
    print(f"  one user, durable and visible   {statistics.median(singles) * 1000:9.2f} ms"
          f" (a synced write alone {fsync(folder) * 1000:.2f} ms)", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--millions", type=int, nargs="*", default=[10])
    arguments.add_argument("--kinds", nargs="*", default=["numbers", "uuids"])
    asked = arguments.parse_args()
    for millions in asked.millions:
        for kind in asked.kinds:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-segments-", dir=ROOT / "target"))
            try:
                measure(kind, millions * 1_000_000, folder)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
