#!/usr/bin/env python3
"""Measures how the cost of a request grows with what there is: users, rollouts, routes, endpoints, connections.

    run.py [--only WORD ...] [--rounds N] [--seconds N] [--users-millions N ...] [--sizes N ...] [--endpoints N ...]

Saturated, one thread on the first core, 200-byte answers; load, origin and this script on the last core. All sizes of a row
are up at once and take turns in each round. Needs Go and nginx, as `make bench-peers` does, and its load generator.
Prints a table of CPU µs a request and writes it to target/bench-growth.md. Exit status: 0, or 1 when a request failed.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # nothing is left beside the sources
sys.path[:0] = [str(HERE.parent / "switching"), str(HERE.parent / "peers")]
from client import Connection, request, wait_ready  # noqa: E402

spec = importlib.util.spec_from_file_location("peers", HERE.parent / "peers" / "run.py")
peers = sys.modules["peers"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peers)

ROOT = HERE.parent.parent
SIZES = (1, 10, 100, 1_000, 10_000)
# Each is kept connected: what 20,000 open files have room for is 8,900, where few connections come in.
ENDPOINTS = (1, 10, 100, 1_000, 8_000)
CONNECTIONS = (1, 64, 1_000, 3_000)  # in flight at once; 20,000 open files have room for 3,974
MILLIONS = (0, 1, 10)
SEGMENTS = (0, 1, 2, 5, 10)
CYCLE = 20_000  # requests that the load takes in turn, each with its own user
FIRST_USER = 5_000_000_000
FIRST_OTHER = 7_000_000_000  # nobody from here on sends requests
READY_SECONDS = 300
WARM_UP_SECONDS = 0.5
YAML = """
server: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/upgrade }}
listeners: [{{ address: "127.0.0.1:{http}" }}]
admin: {{ address: "127.0.0.1:{admin}" }}
limits: {{ connections_max: {at_once}, requests_in_flight_max: {at_once} }}
identity: {{ sources: [{{ header: X-User-Id }}], anonymous: stable }}
store: {{ embedded: {{ path: {folder}/rollouts.db }} }}
access_log: {{ path: {folder}/access.log, format: json }}
pools:
  stable: {{ balance: {balance}, endpoints: [{endpoints}], connections: {{ max_idle: 12000, max_idle_per_endpoint: 12000, max_per_endpoint: 12000 }} }}
  canary: {{ endpoints: ["127.0.0.1:{canary}"], connections: {{ max_idle: 12000, max_idle_per_endpoint: 12000, max_per_endpoint: 12000 }} }}
routes:
{routes}
rollouts:
{rollouts}
"""


class Site:
    """The program with so many of something."""

    def __init__(self, bench, folder, ports, size, millions=0, segments=0, rollouts=1, routes=1, endpoints=1,
                 balance="round_robin", at_once=10_000):
        self.bench, self.size, self.folder, self.endpoints = bench, size, folder, endpoints
        self.paths = max(rollouts, routes)
        self.http, self.admin = peers.free_port(), peers.free_port()
        folder.mkdir()
        names = [f"r{n}" for n in range(rollouts)]
        # Of 10,000 endpoints each has an address of its own; the origin listens on all of them.
        hosts = [f"127.{1 + n // 65_000}.{n // 250 % 250}.{1 + n % 250}" for n in range(endpoints)]
        lists = ["many"] if millions else [f"many-{n}" for n in range(segments)]
        each = ", ".join(f"{{ segment: {name}, release: canary }}" for name in lists)
        target = f"targets: [{each}], " if lists else ""
        values = {
            "folder": folder, "http": self.http, "admin": self.admin, "balance": balance, "canary": ports["canary"],
            "at_once": at_once,
            "endpoints": ", ".join(f'"{host}:{ports["stable"]}"' for host in hosts),
            "routes": "\n".join(f"  - {{ match: {{ path: /n{n} }}, rollout: {names[n % rollouts]} }}" for n in range(self.paths)),
            "rollouts": "\n".join(f"  {name}: {{ releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}, "
                                  f"{target}split: {{ canary: 0% }} }}" for name in names),
        }
        config = folder / "switchyard.yaml"
        config.write_text(YAML.format(**values))
        program = os.environ.get("SWITCHYARD_BIN", str(ROOT / "target/release/switchyard"))
        command = [program, "serve", "-c", str(config)]
        self.peer = peers.Peer("switchyard", "Switchyard", command, self.http, "", routed=False)
        began = time.perf_counter()
        self.process = peers.Process("switchyard", bench.settings.cores[0], command, folder)
        wait_ready(self.process, self.admin, READY_SECONDS)
        self.ready = time.perf_counter() - began
        for number, name in enumerate(lists):
            first = FIRST_USER if millions else FIRST_OTHER + 2_000_000 * number
            self.fill(name, first, max(millions, 1) * 1_000_000)
        self.memory = self.resident()

    def fill(self, name, first, users):
        """Every second number from the first on."""
        connection, sent = Connection(self.admin), 0
        status, said = connection.ask(request("GET", "/api/v1/segments"))
        revision = json.loads(said)["segments"][name]["revision"]
        length = users * (len(str(first)) + 1)
        connection.send((f"PUT /api/v1/segments/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
                         f'If-Match: "{revision}"\r\nContent-Length: {length}\r\n\r\n').encode())
        while sent < users:
            some = range(sent, min(users, sent + 100_000))
            connection.send("".join(f"{first + 2 * n}\n" for n in some).encode())
            sent = some.stop
        status, said = connection.answer()
        if status != 200:
            raise peers.Failed(f"a segment was refused: {status} {said.decode(errors='replace')}")

    def resident(self):
        status = Path(f"/proc/{self.process.child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024

    def measure(self, seconds, connections):
        more = ["-saturate", "-path", "/n{n}/items?page=3", "-paths", str(self.paths), "-conns", str(connections)]
        warm_up = WARM_UP_SECONDS + (connections + self.endpoints) / 3_000  # until all are open
        return self.bench.load(self.peer, self.process, more, seconds, warm_up)

    def stop(self):
        self.process.stop()


def options():
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--only", nargs="*", default=[], help="rows that have one of these words")
    parse.add_argument("--rounds", type=int, default=5)
    parse.add_argument("--seconds", type=float, default=0.7, help="of each measurement")
    parse.add_argument("--users-millions", type=int, nargs="*", default=MILLIONS)
    parse.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parse.add_argument("--endpoints", type=int, nargs="*", default=ENDPOINTS)
    return parse.parse_args()


def rows(wanted):
    """What grows, its sizes, and of a size what the program is given and how many connections there are."""
    yield "million users of a segment", wanted.users_millions, lambda n: ({"millions": n}, 64)
    yield "segments of a million that the user is not in", SEGMENTS, lambda n: ({"segments": n}, 64)
    yield "rollouts, a route each", wanted.sizes, lambda n: ({"rollouts": n}, 64)
    yield "routes to one rollout", wanted.sizes, lambda n: ({"routes": n}, 64)
    for balance in ("round_robin", "least_requests", "user"):
        given = {"balance": balance, "at_once": 500}
        yield f"endpoints, {balance}", wanted.endpoints, lambda n, given=given: (given | {"endpoints": n}, 64)
    yield "connections, all of them busy", CONNECTIONS, lambda n: ({}, n)


def measured(name, sizes, of, make, wanted):
    """A row's line of the table, and how many requests failed."""
    sites, errors = [], 0
    try:
        for size in sizes:
            given, connections = of(size)
            sites.append((make(size, **given), connections, []))
        for number in range(wanted.rounds):
            for site, connections, figures in sites[number % len(sites):] + sites[:number % len(sites)]:
                seen = site.measure(wanted.seconds, connections)
                errors += seen["errors"]
                figures.append(seen["cpu_us_a_request"])
                if seen["errors"]:
                    note(f"{name}, {site.size:,}: {seen['error_kinds']}")
        cells = []
        for site, _, figures in sites:
            cells.append(f"{site.size:,}: {statistics.median(figures):.1f}")
            note(f"{name}, {site.size:,}: {statistics.median(figures):.1f} µs ({min(figures):.1f} to {max(figures):.1f}), "
                 f"ready in {site.ready:.2f} s, {site.memory:.0f} MiB before and {site.resident():.0f} MiB after")
        first, last = (statistics.median(f) for _, _, f in (sites[0], sites[-1]))
        memory = " · ".join(f"{site.memory:.0f}" for site, _, _ in sites)
        ready = " · ".join(f"{site.ready:.2f}" for site, _, _ in sites)
        return f"| {name} | {' · '.join(cells)} | {last / first:.2f} | {memory} | {ready} |", errors
    finally:
        for site, _, _ in sites:
            site.stop()


def start_origin(settings, folder, ports):
    """That of `make bench-peers`, on all addresses of this machine, with room for all connections."""
    bodies = {release: (f"{release} " + "x" * peers.BODY_BYTES)[:peers.BODY_BYTES] for release in ports}
    servers = "".join(f'server {{ listen 0.0.0.0:{port} backlog=16384; location / {{ return 200 "{bodies[release]}"; }} }}\n'
                      for release, port in ports.items())
    conf = folder / "origin.conf"
    conf.write_text(f"daemon off; worker_processes 1; pid {folder}/origin.pid; error_log {folder}/origin.log warn;\n"
                    "events { worker_connections 19000; }\n"
                    "http { access_log off; default_type text/plain; keepalive_timeout 600s; keepalive_requests 1000000000;\n"
                    f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
                    f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{servers}}}\n")
    origin = peers.Process("origin", settings.cores[-1], [peers.find_program("nginx"), "-c", str(conf)], folder)
    origin.wait_for(ports["stable"])
    return origin


def note(text):
    print(text, file=sys.stderr, flush=True)


def main():
    wanted, settings = options(), peers.Settings()
    if len(settings.cores) < 2:
        raise peers.Failed("two cores are needed: one for the proxy, one for load and origin")
    peers.install_missing()
    peers.lift_file_limit()
    os.sched_setaffinity(0, {settings.cores[-1]})
    target, lines, failed = ROOT / "target", [], 0
    with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=target) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the origin's worker is nobody
        load = peers.build_go(HERE.parent / "peers" / "load", folder / "load")
        (folder / "cycle").write_text("".join(f"other {FIRST_USER + 101 * n}\n" for n in range(CYCLE)))
        ports = {"stable": peers.free_port(), "canary": peers.free_port()}
        origin = start_origin(settings, folder, ports)
        bench = peers.Bench(settings, folder, load, origin)
        try:
            for name, sizes, of in rows(wanted):
                if wanted.only and not any(word in name for word in wanted.only):
                    continue
                count = 0

                def make(size, **given):
                    nonlocal count
                    count += 1
                    return Site(bench, folder / f"{name.replace(' ', '-').replace(',', '')}-{count}", ports, size, **given)
                line, errors = measured(name, sizes, of, make, wanted)
                lines.append(line)
                failed += errors
        finally:
            origin.stop()
    head = ["| how many | CPU µs a request | last to first | MiB at start | s until ready |", "|---|---|--:|---|---|"]
    text = "\n".join([f"{wanted.rounds} alternating rounds of {wanted.seconds} s; medians. {failed} requests failed.", "",
                      *head, *lines, ""])
    print(text)
    (target / "bench-growth.md").write_text(text)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except peers.Failed as problem:
        sys.exit(f"bench-growth: {problem}")
