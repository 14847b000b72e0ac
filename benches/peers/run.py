#!/usr/bin/env python3
"""Measures Switchyard beside a bare Pingora proxy, Gin + httputil.ReverseProxy, nginx and HAProxy.

Run from anywhere; see README.md beside this file for what is measured and for the environment variables. Prints a
Markdown table and writes it to target/bench-peers.md, every round's figures to target/bench-peers.json.
Exit status: 0, or 1 when a peer answered wrongly or did not start.
"""

import glob
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LISTED_USERS = 100_000
CYCLE_USERS = 10_000  # half of them listed; the load goes through them again and again
BODY_BYTES = 200
READY_SECONDS = 60
DISTURBED_SHARE = 0.05  # of a core taken by other programs: measured again,
ATTEMPTS_MAX = 3  # then the least disturbed attempt counts
STOP_SECONDS = 5


@dataclass
class Settings:
    rounds: int = int(os.environ.get("ROUNDS", "5"))
    seconds: float = float(os.environ.get("SECONDS_PER_ROUND", "5"))
    rate: int = int(os.environ.get("RATE", "4000"))
    connections: int = int(os.environ.get("CONNECTIONS", "64"))
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
    rounds: list = field(default_factory=list)
    failure: str = ""


class Failed(Exception):
    """Something that the reader must see; no stack trace helps."""


# --- what must be there -------------------------------------------------------------------------------------------

def install_missing():
    missing = [name for name in ("nginx", "haproxy") if not find_program(name)]
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)}", file=sys.stderr)
        quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-q"], **quiet)
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *missing], **quiet)
    if not find_program("nginx"):
        raise Failed("nginx is the origin: install it, e.g. `apt-get install nginx haproxy`")


def find_program(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def build_go(directory, output):
    if not shutil.which("go"):
        raise Failed("Go is needed for the Gin peer and the load generator: see go.dev/dl")
    subprocess.run(["go", "build", "-o", output, "."], cwd=directory, check=True)
    return str(output)


def binaries(variable, default):
    """`PATH`, or `LABEL=PATH,LABEL=PATH` to compare builds; what does not exist is left out, aloud."""
    found = []
    for item in (os.environ.get(variable) or default or "").split(","):
        label, _, path = item.rpartition("=")
        if path and os.access(path, os.X_OK):
            found.append((label, os.path.abspath(path)))
        else:
            print(f"skipped: {variable}={path or '(not set)'} is not there", file=sys.stderr)
    return found


def newest_bare():
    built = [p for p in glob.glob(str(ROOT / "target/release/deps/bare-*")) if os.access(p, os.X_OK)]
    return max(built, key=os.path.getmtime, default="")


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return ((done.stdout or done.stderr).strip().splitlines() or ["?"])[0]


# --- inputs -------------------------------------------------------------------------------------------------------

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fill(template, to, values):
    text = (HERE / template).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    to.write_text(text)
    return str(to)


def write_users(folder):
    listed = [str(1_000_000 + 7 * i) for i in range(LISTED_USERS)]
    (folder / "users").write_text("".join(f"{u}\n" for u in listed))
    (folder / "users.nginx").write_text("".join(f'"{u}" canary;\n' for u in listed))
    (folder / "users.haproxy").write_text("".join(f"{u} canary\n" for u in listed))
    step = LISTED_USERS // (CYCLE_USERS // 2)
    cycle = [f"listed {u}\nother {int(u) + 3}\n" for u in listed[::step]]
    (folder / "cycle").write_text("".join(cycle))
    return "[" + ", ".join(f'"{u}"' for u in listed) + "]"


# --- processes ----------------------------------------------------------------------------------------------------

class Process:
    """A program pinned to one core, its children with it."""

    def __init__(self, name, core, command, folder):
        self.log = folder / f"{name}.out"
        environment = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
        with open(self.log, "w") as out:
            self.child = subprocess.Popen(["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, env=environment, cwd=folder, process_group=0)

    def wait_for(self, port):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failed(f"ended with {self.child.returncode}: {self.tail()}")
            try:
                if request(port, "/", "1")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise Failed(f"not ready after {READY_SECONDS} s: {self.tail()}")

    def tail(self):
        return " / ".join(self.log.read_text(errors="replace").strip().splitlines()[-5:])

    def pids(self):
        """taskset becomes the program; workers are its children."""
        found, queue = [], [self.child.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            queue += [int(c) for task in glob.glob(f"/proc/{pid}/task/*/children") for c in Path(task).read_text().split()]
        return found

    def peak_memory(self):
        """VmHWM in bytes of the largest process of the tree: workers share the master's pages."""
        def high_water(pid):
            status = Path(f"/proc/{pid}/status").read_text()
            return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
        return max(high_water(pid) for pid in self.pids())

    def stop(self):
        for how in (signal.SIGINT, signal.SIGKILL):
            if self.child.poll() is None:
                os.killpg(self.child.pid, how)
                try:
                    self.child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    pass


def request(port, path, user, more=""):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.example.com\r\nOrigin: https://shop.example.com\r\n"
                  f"X-User-Id: {user}\r\n{more}Connection: close\r\n\r\n".encode())
        answer = b""
        while part := s.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ")
    return (int(words[1]) if len(words) > 1 else 0), body.decode(errors="replace")


# --- measuring ----------------------------------------------------------------------------------------------------

class Bench:
    def __init__(self, settings, folder, load, origin):
        self.settings, self.folder, self.load_program, self.origin = settings, folder, load, origin

    def start(self, peer):
        (self.folder / "access.log").unlink(missing_ok=True)
        process = Process(peer.key.replace("/", "-"), self.settings.cores[0], peer.command, self.folder)
        try:
            process.wait_for(peer.port)
        except Failed:
            process.stop()
            raise
        return process

    def load(self, peer, process, mode, seconds, warmup):
        command = ["taskset", "-c", str(self.settings.cores[-1]), self.load_program, *mode,
                   "-addr", f"127.0.0.1:{peer.port}", "-users", str(self.folder / "cycle"), "-body", str(BODY_BYTES),
                   "-conns", str(self.settings.connections), "-warmup", f"{warmup}s", "-duration", f"{seconds}s",
                   "-pids", ",".join(map(str, process.pids())),
                   "-origin-pids", ",".join(map(str, self.origin.pids())), f"-routed={str(peer.routed).lower()}"]
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
            seen = self.load(peer, process, ["-saturate"], 1.0, 1.0)
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

    def round(self, peer):
        attempts = []
        while len(attempts) < ATTEMPTS_MAX and not any(a["foreign_share"] <= DISTURBED_SHARE for a in attempts):
            attempts.append(self.attempt(peer))
        return min(attempts, key=lambda a: a["foreign_share"])

    def attempt(self, peer):
        process = self.start(peer)
        try:
            saturated = self.load(peer, process, ["-saturate"], self.settings.seconds, 1.0)
            fixed = self.load(peer, process, ["-rate", str(self.settings.rate)], self.settings.seconds, 0.5)
            memory = process.peak_memory()
        finally:
            process.stop()
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
            "p50_us": fixed["latency_us"]["p50"],
            "p99_us": fixed["latency_us"]["p99"],
            "memory": memory,
            "errors": saturated["errors"] + fixed["errors"],
            "saturated": saturated,
            "fixed": fixed,
        }


def make_peers(settings, folder, ports, gin):
    users = write_users(folder)
    values = {"DIR": folder, "STABLE": ports["stable"], "CANARY": ports["canary"], "USERS": users}
    access_log = folder / "access.log"
    urls = {r: f"http://127.0.0.1:{ports[r]}" for r in ("stable", "canary")}
    peers = []

    def add(key, name, version, command, routed=True):
        """`command` makes the command line from the port."""
        wanted = not settings.only or any(key == o or key.startswith(o + "/") for o in settings.only)
        if wanted:
            port = free_port()
            peers.append(Peer(key, name, command(port), port, version, routed))

    def config(template, name, port):
        return fill(template, folder / name, values | {"LISTEN": port, "ADMIN": free_port(), "ACCESS_LOG": access_log})

    for label, path in binaries("SWITCHYARD_BIN", str(ROOT / "target/release/switchyard")):
        add(f"switchyard/{label}", f"Switchyard {label}".strip(), first_line(path, "version"),
            lambda port: [path, "serve", "-c", config("switchyard.yaml.in", f"switchyard{label}.yaml", port)])
    for label, path in binaries("BARE_BIN", newest_bare()):
        add(f"bare/{label}", f"bare Pingora {label}".strip(), first_line(path, "--version"),
            lambda port: [path, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{ports['stable']}"], routed=False)
    gin_command = [gin, "-stable", urls["stable"], "-canary", urls["canary"], "-users", str(folder / "users"),
                   "-access-log", str(access_log)]
    version = first_line(gin, "-version")
    add("gin", "Gin + ReverseProxy", version, lambda port: [*gin_command, "-listen", f"127.0.0.1:{port}"])
    if "gin-pool" in settings.only:
        add("gin-pool", "Gin, pooled buffers", version,
            lambda port: [*gin_command, "-buffer-pool", "-listen", f"127.0.0.1:{port}"])
    nginx, haproxy = find_program("nginx"), find_program("haproxy")
    add("nginx", "nginx", first_line(nginx, "-v").replace("nginx version: ", ""),
        lambda port: [nginx, "-c", config("nginx.conf.in", "nginx.conf", port)])
    if haproxy:
        add("haproxy", "HAProxy", first_line(haproxy, "-v").split(" - ")[0],
            lambda port: [haproxy, "-db", "-f", config("haproxy.cfg.in", "haproxy.cfg", port)])
    else:
        print("skipped: haproxy is not installed", file=sys.stderr)
    return peers


def start_origin(settings, folder, ports):
    bodies = {f"{r.upper()}_BODY": (f"{r} " + "x" * BODY_BYTES)[:BODY_BYTES] for r in ("stable", "canary")}
    conf = fill("origin.conf.in", folder / "origin.conf",
                {"DIR": folder, "STABLE": ports["stable"], "CANARY": ports["canary"]} | bodies)
    origin = Process("origin", settings.cores[-1], [find_program("nginx"), "-c", conf], folder)
    origin.wait_for(ports["stable"])
    return origin


# --- the table ----------------------------------------------------------------------------------------------------

def median(peer, key):
    return statistics.median(r[key] for r in peer.rounds)


def ratio(peer, base, key):
    """The median of the rounds' ratios: a slow minute slows both. For want of `base`, a dash."""
    if base is None or not base.rounds:
        return "–"
    return f"{statistics.median(a[key] / b[key] for a, b in zip(peer.rounds, base.rounds)):.2f}"


def table(peers):
    gin = next((p for p in peers if p.key == "gin"), None)
    bare = next((p for p in peers if p.key.startswith("bare/")), None)
    lines = [
        "| | CPU µs a request | to Gin | to bare | requests/s saturated | to Gin | p50 µs | p99 µs | peak MiB | errors |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for p in peers:
        if not p.rounds:
            lines.append(f"| {p.name} | {p.failure} |" + " |" * 8)
            continue
        lines.append(
            f"| {p.name} | {median(p, 'cpu_us'):.1f} | {ratio(p, gin, 'cpu_us')} | {ratio(p, bare, 'cpu_us')} "
            f"| {median(p, 'rps'):,.0f} | {ratio(p, gin, 'rps')} "
            f"| {median(p, 'p50_us'):,.0f} | {median(p, 'p99_us'):,.0f} "
            f"| {max(r['memory'] for r in p.rounds) / 2**20:,.0f} | {sum(r['errors'] for r in p.rounds)} |")
    return lines


def doubts(peers):
    """What a reader of the figures should know of this run."""
    for p in (p for p in peers if p.rounds):
        share, foreign, load = (median(p, k) for k in ("core_share", "foreign_share", "load_core_share"))
        if foreign > DISTURBED_SHARE:
            yield f"{p.name} shared the machine with other programs ({foreign:.0%} of a core): measure again on a quiet machine."
        if share < 0.95:
            yield (f"{p.name} used {share:.0%} of its core when saturated (the core of load and "
                   f"origin was {load:.0%} busy): its requests/s are a lower bound.")


def report(settings, peers):
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    return "\n".join([
        f"{time.strftime('%Y-%m-%d')}, {cpu}, {len(settings.cores)} cores, Linux {platform.release()}. "
        f"{settings.rounds} alternating rounds of {settings.seconds:g} s saturated ({settings.connections} connections) and "
        f"{settings.seconds:g} s at {settings.rate:,} requests/s, access logs on. Medians; ratios are medians of the rounds' ratios; "
        f"memory is the highest.",
        "",
        *table(peers),
        "",
        "Versions: " + "; ".join(dict.fromkeys(f"{p.name}: {p.version}" for p in peers)) + ".",
        *[f"- {line}" for line in doubts(peers)],
        "",
    ])


# --- all of it ----------------------------------------------------------------------------------------------------

def measure(settings, bench, peers):
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
    for r in range(settings.rounds):
        able = [p for p in peers if not p.failure]
        for peer in able[r % max(len(able), 1):] + able[:r % max(len(able), 1)]:
            try:
                figures = bench.round(peer)
            except Failed as problem:
                peer.failure, peer.rounds = f"failed: {problem}", []
                print(f"{peer.name}: {peer.failure}", file=sys.stderr)
                continue
            peer.rounds.append(figures)
            print(f"round {r + 1}: {peer.name}: {figures['cpu_us']:.1f} µs, {figures['rps']:,.0f}/s, "
                  f"p50 {figures['p50_us']:.0f} µs, p99 {figures['p99_us']:.0f} µs, {figures['errors']} errors, "
                  f"its core {figures['core_share']:.0%}, load's core {figures['load_core_share']:.0%}, "
                  f"other programs {figures['foreign_share']:.0%}", file=sys.stderr)


def main():
    settings = Settings()
    if len(settings.cores) < 2:
        raise Failed("two cores are needed: one for the proxy, one for load and origin")
    install_missing()
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as temporary:
        folder = Path(temporary)
        gin = build_go(HERE / "gin", folder / "gin")
        load = build_go(HERE / "load", folder / "load")
        ports = {"stable": free_port(), "canary": free_port()}
        peers = make_peers(settings, folder, ports, gin)
        if not peers:
            raise Failed(f"PEERS={','.join(settings.only)} names no peer")
        origin = start_origin(settings, folder, ports)
        try:
            measure(settings, Bench(settings, folder, load, origin), peers)
        finally:
            origin.stop()
    text = report(settings, peers)
    print(text)
    (target / "bench-peers.md").write_text(text)
    (target / "bench-peers.json").write_text(json.dumps({p.key: p.rounds for p in peers}, indent=1))
    return 1 if any(p.failure or any(r["errors"] for r in p.rounds) for p in peers) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as problem:
        sys.exit(f"bench-peers: {problem}")
