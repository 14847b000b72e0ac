#!/usr/bin/env python3
"""Measures Switchyard beside a bare Pingora proxy, Gin + httputil.ReverseProxy, nginx, HAProxy and Caddy.

Run from anywhere; see README.md beside this file for what is measured and for the environment variables. Prints
Markdown tables and writes them to target/bench-peers.md, every round's figures to target/bench-peers.json.
Exit status: 0, or 1 when a peer answered wrongly or did not start.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is left beside the sources
from cases import BODY_BYTES, chosen, idle_connections  # noqa: E402
from inputs import HERE, fill, free_port, make_certificate, write_bodies, write_users  # noqa: E402
from programs import CADDY, ROOT, Failed, binaries, build_caddy, build_go, find_program  # noqa: E402
from programs import first_line, install_missing, newest_bare  # noqa: E402
from running import Process, request  # noqa: E402
from tables import DISTURBED_SHARE, report  # noqa: E402


@dataclass
class Settings:
    rounds: int = int(os.environ.get("ROUNDS", "5"))
    seconds: float = float(os.environ.get("SECONDS_PER_ROUND", "5"))
    rate: int = int(os.environ.get("RATE", "4000"))
    connections: int = int(os.environ.get("CONNECTIONS", "64"))
    case_rounds: int = int(os.environ.get("CASE_ROUNDS", "3"))  # of the cases beside 200
    case_seconds: float = float(os.environ.get("CASE_SECONDS", "1.5"))
    attempts: int = int(os.environ.get("ATTEMPTS", "3"))  # of a disturbed measurement; then the least disturbed one counts
    cases: list = field(default_factory=lambda: [c for c in os.environ.get("CASES", "").split(",") if c])
    only: list = field(default_factory=lambda: [p for p in os.environ.get("PEERS", "").split(",") if p])
    cores: list = field(default_factory=lambda: sorted(os.sched_getaffinity(0)))


@dataclass
class Peer:
    key: str
    name: str
    command: list
    port: int
    version: str
    routed: bool = True
    tls_port: int = 0  # 0: it has no TLS here
    cases: dict = field(default_factory=dict)  # of each case the rounds' figures
    failure: str = ""
    case_failures: dict = field(default_factory=dict)

    @property
    def rounds(self):
        return self.cases.get("200", [])


# --- measuring ----------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, settings, folder, load, origin):
        self.settings, self.folder, self.load_program, self.origin = settings, folder, load, origin
        self.idle_connections = idle_connections()

    def start(self, peer):
        (self.folder / "access.log").unlink(missing_ok=True)
        process = Process(peer.key.replace("/", "-"), self.settings.cores[0], peer.command, self.folder)
        try:
            process.wait_for(peer.port, peer.tls_port)
        except Failed:
            process.stop()
            raise
        return process

    def load(self, peer, process, mode, seconds, warmup, secure=False):
        """`mode` comes last: its flags win."""
        command = ["taskset", "-c", str(self.settings.cores[-1]), self.load_program,
                   "-addr", f"127.0.0.1:{peer.tls_port if secure else peer.port}",
                   "-users", str(self.folder / "cycle"), "-body", str(BODY_BYTES),
                   "-conns", str(self.settings.connections), "-warmup", f"{warmup}s", "-duration", f"{seconds}s",
                   "-pids", ",".join(map(str, process.pids())),
                   "-origin-pids", ",".join(map(str, self.origin.pids())), f"-routed={str(peer.routed).lower()}", *mode]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{done.stderr.strip()}; it said: {process.tail()}")
        return json.loads(done.stdout)

    def verify(self, peer):
        """Before anything is measured: it does the job."""
        process = self.start(peer)
        try:
            if peer.routed:
                self.verify_headers(peer)
            seen = self.load(peer, process, ["-saturate"], 3.0, 1.0)  # long enough for all users, disturbed or not
        finally:
            process.stop()
        if seen["errors"]:
            raise Failed(f"{seen['errors']} errors: {seen['error_kinds']}")
        log = self.folder / "access.log"
        if peer.routed and not (log.exists() and log.stat().st_size):
            raise Failed("it wrote no access log")
        if peer.routed and not 0.08 <= seen["canary_share_of_unlisted"] <= 0.12:
            raise Failed(f"{seen['canary_share_of_unlisted']:.1%} of the unlisted users on canary, not 10 %")
        return seen["assignment"]

    def verify_headers(self, peer):
        host = "shop.example.com"
        _, body = request(peer.port, "/seen", "1000000")
        want = f"canary|{host}||{host}|127.0.0.1|http|1000000"
        if body != want:
            raise Failed(f"upstream saw {body}, not {want}")

    def round(self, peer, case):
        if case.figure == "idle_kib":
            return self.hold_idle(peer)
        attempts = []
        while len(attempts) < self.settings.attempts and not any(a["foreign_share"] <= DISTURBED_SHARE for a in attempts):
            attempts.append(self.attempt(peer) if case.key == "200" else self.attempt_case(peer, case))
        return min(attempts, key=lambda a: a["foreign_share"])

    def attempt_case(self, peer, case):
        process = self.start(peer)
        try:
            seen = self.load(peer, process, ["-saturate", *case.flags], self.settings.case_seconds, 0.5, case.secure)
        finally:
            process.stop()
        return self.figures(seen) | {"errors": seen["errors"], "saturated": seen}

    def hold_idle(self, peer):
        """After a second of load, so that only connections are added to what the process has."""
        process = self.start(peer)
        try:
            self.load(peer, process, ["-saturate"], 0.5, 0.5)
            held = self.load(peer, process, ["-idle", str(self.idle_connections)], 1, 0)
        finally:
            process.stop()
        grown = held["rss_after"] - held["rss_before"]
        return {"idle_kib": grown / 1024 / held["connections"], "errors": held["errors"], "held": held}

    def figures(self, saturated):
        seconds, busy = saturated["seconds"], saturated["core_busy"]
        proxy_core, load_core = busy[self.settings.cores[0]], busy[self.settings.cores[-1]]
        return {
            "cpu_us": saturated["cpu_us_a_request"],
            "rps": saturated["requests_a_second"],
            "core_share": saturated["cpu_seconds"] / seconds,
            "load_core_share": load_core,
            # By other programs, of either core. Not at the fixed rate: /proc/stat is sampled and sees little of a
            # process that runs for microseconds.
            "foreign_share": max(0.0, proxy_core - saturated["cpu_seconds"] / seconds,
                                 load_core - saturated["beside_cpu_seconds"] / seconds),
        }

    def attempt(self, peer):
        process = self.start(peer)
        try:
            saturated = self.load(peer, process, ["-saturate"], self.settings.seconds, 1.0)
            fixed = self.load(peer, process, ["-rate", str(self.settings.rate)], self.settings.seconds, 0.5)
            memory = process.peak_memory()
        finally:
            process.stop()
        return self.figures(saturated) | {
            "p50_us": fixed["latency_us"]["p50"],
            "p99_us": fixed["latency_us"]["p99"],
            "memory": memory,
            "errors": saturated["errors"] + fixed["errors"],
            "saturated": saturated,
            "fixed": fixed,
        }


def make_peers(settings, folder, ports, gin, caddy):
    users = write_users(folder)
    values = {"DIR": folder, "STABLE": ports["stable"], "CANARY": ports["canary"], "USERS": users}
    access_log = folder / "access.log"
    urls = {r: f"http://127.0.0.1:{ports[r]}" for r in ("stable", "canary")}
    peers = []

    def add(key, name, version, command, routed=True, secure=True):
        """`command` makes the command line from the two ports."""
        wanted = not settings.only or any(key == o or key.startswith(o + "/") for o in settings.only)
        if wanted:
            port, tls_port = free_port(), free_port()
            peers.append(Peer(key, name, command(port, tls_port), port, version, routed, tls_port if secure else 0))

    def config(template, name, port, tls_port):
        own = {"LISTEN": port, "TLS": tls_port, "ADMIN": free_port(), "ACCESS_LOG": access_log}
        return fill(template, folder / name, values | own)

    for label, path in binaries("SWITCHYARD_BIN", str(ROOT / "target/release/switchyard")):
        add(f"switchyard/{label}", f"Switchyard {label}".strip(), first_line(path, "version"),
            lambda port, tls: [path, "serve", "-c", config("switchyard.yaml.in", f"switchyard{label}.yaml", port, tls)])
    for label, path in binaries("BARE_BIN", newest_bare()):
        add(f"bare/{label}", f"bare Pingora {label}".strip(), first_line(path, "--version"),
            lambda port, tls: [path, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{ports['stable']}"],
            routed=False, secure=False)
    gin_command = [gin, "-stable", urls["stable"], "-canary", urls["canary"], "-users", str(folder / "users"),
                   "-access-log", str(access_log), "-certificate", str(folder / "tls.crt"), "-key", str(folder / "tls.key")]
    version = first_line(gin, "-version")
    add("gin", "Gin + ReverseProxy", version,
        lambda port, tls: [*gin_command, "-listen", f"127.0.0.1:{port}", "-tls-listen", f"127.0.0.1:{tls}"])
    if "gin-pool" in settings.only:
        add("gin-pool", "Gin, pooled buffers", version,
            lambda port, tls: [*gin_command, "-buffer-pool", "-listen", f"127.0.0.1:{port}", "-tls-listen", f"127.0.0.1:{tls}"])
    nginx, haproxy = find_program("nginx"), find_program("haproxy")
    add("nginx", "nginx", first_line(nginx, "-v").replace("nginx version: ", ""),
        lambda port, tls: [nginx, "-c", config("nginx.conf.in", "nginx.conf", port, tls)])
    if haproxy:
        add("haproxy", "HAProxy", first_line(haproxy, "-v").split(" - ")[0],
            lambda port, tls: [haproxy, "-db", "-f", config("haproxy.cfg.in", "haproxy.cfg", port, tls)])
    else:
        print("skipped: haproxy is not installed", file=sys.stderr)
    if caddy:
        add("caddy", "Caddy, one fixed endpoint", f"Caddy {CADDY}",
            lambda port, tls: [caddy, "run", "--config", config("Caddyfile.in", "Caddyfile", port, tls)], routed=False)
    return peers


def start_origin(settings, folder, ports):
    bodies = {f"{r.upper()}_BODY": (f"{r} " + "x" * BODY_BYTES)[:BODY_BYTES] for r in ("stable", "canary")}
    conf = fill("origin.conf.in", folder / "origin.conf",
                {"DIR": folder, "STABLE": ports["stable"], "CANARY": ports["canary"]} | bodies)
    origin = Process("origin", settings.cores[-1], [find_program("nginx"), "-c", conf], folder)
    origin.wait_for(ports["stable"])
    return origin


# --- all of it ----------------------------------------------------------------------------------------------------


def measure(settings, bench, peers, cases):
    assignments = {}
    for peer in peers:
        try:
            assignments[peer.key] = bench.verify(peer)
        except Failed as problem:
            peer.failure = f"failed: {problem}"
            print(f"{peer.name}: {peer.failure}", file=sys.stderr)
    for key, assignment in assignments.items():  # same hash, same salt: the very same users
        if key.startswith("switchyard/") and assignment != assignments.get("gin", assignment):
            raise Failed(f"{key} and gin disagree on who gets the canary: {assignment}, {assignments['gin']}")
    for case in cases:
        for r in range(settings.rounds if case.key == "200" else settings.case_rounds):
            able = [p for p in peers if not p.failure and case.key not in p.case_failures and (p.tls_port or not case.secure)]
            for peer in able[r % max(len(able), 1):] + able[:r % max(len(able), 1)]:
                measure_round(bench, peer, case, r + 1)


def measure_round(bench, peer, case, number):
    try:
        figures = bench.round(peer, case)
    except Failed as problem:
        peer.case_failures[case.key] = f"failed: {problem}"
        peer.cases.pop(case.key, None)
        print(f"{peer.name}, {case.title}: {problem}", file=sys.stderr)
        return
    peer.cases.setdefault(case.key, []).append(figures)
    words = [f"{figures[case.figure]:.1f} {'KiB' if case.figure == 'idle_kib' else 'µs'}", f"{figures['errors']} errors"]
    if "rps" in figures:
        words += [f"{figures['rps']:,.0f}/s", f"its core {figures['core_share']:.0%}",
                  f"load's core {figures['load_core_share']:.0%}", f"other programs {figures['foreign_share']:.0%}"]
    if "p50_us" in figures:
        words.append(f"p50 {figures['p50_us']:.0f} µs, p99 {figures['p99_us']:.0f} µs")
    print(f"{case.title}, round {number}: {peer.name}: {', '.join(words)}", file=sys.stderr)


def lift_file_limit():
    """Peers inherit it: 10,000 connections on both sides of a proxy."""
    wanted, hard = 40_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    settings = Settings()
    if len(settings.cores) < 2:
        raise Failed("two cores are needed: one for the proxy, one for load and origin")
    try:
        cases = chosen(settings.cases)
    except ValueError as problem:
        raise Failed(problem) from None
    install_missing()
    lift_file_limit()
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the origin's worker is nobody
        gin = build_go(HERE / "gin", folder / "gin")
        load = build_go(HERE / "load", folder / "load")
        ports = {"stable": free_port(), "canary": free_port()}
        make_certificate(folder)
        write_bodies(folder)
        caddy = build_caddy(target) if not settings.only or "caddy" in settings.only else None
        peers = make_peers(settings, folder, ports, gin, caddy)
        if not peers:
            raise Failed(f"PEERS={','.join(settings.only)} names no peer")
        origin = start_origin(settings, folder, ports)
        try:
            measure(settings, Bench(settings, folder, load, origin), peers, cases)
        finally:
            origin.stop()
    text = report(settings, peers, cases)
    print(text)
    (target / "bench-peers.md").write_text(text)
    (target / "bench-peers.json").write_text(json.dumps({p.key: p.cases for p in peers}, indent=1))
    failed = any(p.failure or p.case_failures or any(r["errors"] for rounds in p.cases.values() for r in rounds) for p in peers)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as problem:
        sys.exit(f"bench-peers: {problem}")
