#!/usr/bin/env python3
"""Measures what changes cost while traffic flows: how soon one is visible, and what requests feel of it; of a flood of
admin requests; and what an import of a million users takes.

    run.py [--long] [--seconds N] [--rounds N] [--rate N] [--members N] [--users N]

The program runs on the first core with one thread; load, origins and this script on the last. Needs Go and nginx, as
`make bench-peers` does, and its load generator. Prints a table and writes it to target/bench-switching.md.
Exit status: 0, or 1 when a request failed or the program did.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # nothing is left beside the sources
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]
from client import Connection, rank, request, timed, wait_ready  # noqa: E402
from inputs import CYCLE_USERS  # noqa: E402
from running import READY_SECONDS  # noqa: E402

ROOT = HERE.parent.parent
RATES = (20_000, 16_000, 13_000, 10_000, 8_000, 6_000, 4_000, 2_000)
CORE_SHARE_MAX = 0.70  # of the proxy's core at the rate that is measured at
STEADY_P99_US = 20_000  # more without any change means that the rate is not sustained
MOVE_EACH = 0.020
SPLIT_EACH = 1.0
FIRST_LOOK = 0.002  # for so long, until it is known how long a move takes
LOOK_EACH = 0.0003  # between requests that look whether a move is visible, so that looking is no load of its own
MOVERS = 50
FLOOD_RATE = 2_000
FLOOD_CONNECTIONS = 32
FLOOD_WRITERS = 2  # changes go one after the other, so more would only wait
FLOOD_WRITE_EACH = 5  # one request in so many is a change, as far as the disk allows
MOVES_TIMED = 50
REPLACEMENTS = 20  # of a segment, one after the other with pauses
SETTLE_SECONDS = 5  # until memory that is free is given back
USERS = "/api/v1/rollouts/default/users"

spec = importlib.util.spec_from_file_location("peers", HERE.parent / "peers" / "run.py")
peers = sys.modules["peers"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peers)


def options():
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--long", action="store_true", help="the flood for a minute")
    parse.add_argument("--seconds", type=float, default=5, help="of each round")
    parse.add_argument("--rounds", type=int, default=3, help="each without and with what is measured")
    parse.add_argument("--rate", type=int, help="requests a second; found out otherwise")
    parse.add_argument("--members", type=int, default=1_000_000, help="of the segment that is replaced")
    parse.add_argument("--users", type=int, default=1_000_000, help="that are imported")
    return parse.parse_args()


# --- the program ----------------------------------------------------------------------------------------------------

class Site:
    """The program with its origins, on ports of its own."""

    def __init__(self, folder, settings, load, origin, ports):
        self.folder, self.settings = folder, settings
        self.http, self.admin = peers.free_port(), peers.free_port()
        values = {"DIR": folder, "LISTEN": self.http, "ADMIN": self.admin,
                  "STABLE": ports["stable"], "CANARY": ports["canary"]}
        config = peers.fill("../switching/switchyard.yaml.in", folder / "switchyard.yaml", values)
        program = os.environ.get("SWITCHYARD_BIN", str(ROOT / "target/release/switchyard"))
        self.command = [program, "serve", "-c", config]
        self.peer = peers.Peer("switchyard", "Switchyard", self.command, self.http, "", routed=False)
        self.bench = peers.Bench(settings, folder, load, origin)
        self.process = None

    def start(self):
        """Starts it, and says how long until it was ready."""
        self.process = peers.Process("switchyard", self.settings.cores[0], self.command, self.folder)
        took = timed(lambda: wait_ready(self.process, self.admin, READY_SECONDS))[0]
        return took

    def stop(self):
        if self.process:
            self.process.stop()

    def load(self, rate, seconds, beside=None, more=()):
        """Puts load on it; `beside` runs meanwhile with the time of its end. `more` is for the load generator."""
        warmup, found = 0.5, {}
        def run():
            try:
                found["load"] = self.bench.load(self.peer, self.process, ["-rate", str(rate), *more], seconds, warmup)
            except peers.Failed as problem:
                found["failed"] = problem
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(warmup)
        if beside:
            beside(time.monotonic() + seconds)
        thread.join()
        if "failed" in found:
            raise found["failed"]
        if "latency_us" not in found["load"]:
            raise peers.Failed(f"nothing was answered in time: {found['load']['error_kinds']}")
        return found["load"]

    def change(self, admin, method, path, body="", fields=""):
        status, said = admin.ask(request(method, path, body, fields))
        if status != 200:
            raise peers.Failed(f"{method} {path}: {status} {said.decode(errors='replace')}")

    def commits(self):
        """How many commits were live within how many seconds, by the program's own count."""
        _, said = Connection(self.admin).ask(request("GET", "/metrics"))
        rows = re.findall(r'^switchyard_commit_to_live_seconds_bucket\{le="([^"]+)"\} (\d+)', said.decode(), re.MULTILINE)
        return {float(bound): int(count) for bound, count in rows}

    def memory(self, row):
        status = Path(f"/proc/{self.process.child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(row + ":")) / 1024


def sustained_rate(site, wanted):
    for rate in [wanted] if wanted else RATES:
        try:
            seen = site.load(rate, 2.0)
        except peers.Failed as problem:
            note(f"{rate:,}/s: {problem}")
            continue
        share = seen["cpu_seconds"] / seen["seconds"]
        note(f"{rate:,}/s: {share:.0%} of its core, p99 {seen['latency_us']['p99']:.0f} µs, {seen['errors']} errors")
        if wanted or (share <= CORE_SHARE_MAX and not seen["errors"] and seen["latency_us"]["p99"] < STEADY_P99_US):
            return rate, share
    raise peers.Failed(f"not even {RATES[-1]:,} requests a second are sustained")


def send_list(admin, method, path, file, fields=""):
    """The answer to a file of ids, one a line."""
    admin.send((f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{fields}"
                f"Content-Length: {file.stat().st_size}\r\n\r\n").encode())
    with file.open("rb") as lines:
        admin.socket.sendfile(lines)
    return admin.answer()


# --- what is done beside the load -----------------------------------------------------------------------------------

@contextlib.contextmanager
def first():
    """This thread does not wait for the load, with which it shares a core, where it may: that is no doing of the proxy's."""
    own = threading.get_native_id()
    try:
        os.sched_setscheduler(own, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        note("not root: what is seen of changes waits for the load generator's turns, too")
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(own, os.SCHED_OTHER, os.sched_param(0))


class Moves:
    """Each 20 ms one user's move, seen by another connection; each second a split; the disk's own sync in between. Or the
    looking and the sync alone: this script shares a core with the load generator, which must feel the same of it."""

    def __init__(self, site):
        self.site, self.visible, self.answered, self.synced, self.failed = site, [], [], [], 0
        self.disk = os.open(site.folder / "sync", os.O_RDWR | os.O_CREAT)
        os.pwrite(self.disk, bytes(1 << 20), 0)
        os.fsync(self.disk)
        self.count = 0

    def run(self, end):
        with first():
            self.move_until(end)

    def look(self, end):
        """What `run` does, but for the changes."""
        other = Connection(self.site.http)
        ask = request("GET", "/", fields="X-User-Id: mover-0\r\n")
        with first():
            for _ in self.turns(end):
                until = time.perf_counter() + (statistics.median(self.visible) if self.visible else FIRST_LOOK)
                while time.perf_counter() < until:
                    self.failed += other.ask(ask)[0] != 200
                    time.sleep(LOOK_EACH)
                self.sync()

    def turns(self, end):
        due = time.monotonic()
        while due < end:
            yield
            due += MOVE_EACH
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - MOVE_EACH)

    def move_until(self, end):
        admin, other = Connection(self.site.admin), Connection(self.site.http)
        split_due = time.monotonic() + SPLIT_EACH
        for _ in self.turns(end):
            self.move(admin, other)
            self.synced.append(timed(self.sync)[0])
            if time.monotonic() >= split_due:
                share = 10 + self.count // 7 % 10
                self.site.change(admin, "PUT", "/api/v1/rollouts/default/split", f'{{"canary":"{share}%"}}')
                split_due += SPLIT_EACH

    def move(self, admin, other):
        turn, mover = divmod(self.count, MOVERS)
        release = ("canary", "stable")[turn % 2]
        self.count += 1
        change = request("PUT", f"{USERS}/mover-{mover}", f'{{"release":"{release}"}}')
        ask = request("GET", "/", fields=f"X-User-Id: mover-{mover}\r\n")
        began = time.perf_counter()
        admin.send(change)
        while True:
            status, body = other.ask(ask)
            self.failed += status != 200
            if body.startswith(release.encode()):
                break
            if time.perf_counter() - began > 10:
                raise peers.Failed(f"a change was not visible within 10 s; it said: {self.site.process.tail()}")
            time.sleep(LOOK_EACH)
        seen = time.perf_counter() - began
        status, said = admin.answer()
        if status != 200:
            raise peers.Failed(f"a move was refused: {status} {said.decode(errors='replace')}")
        # Whoever is there already, as at the first turn, is seen at once: that measures nothing.
        if turn > 0:
            self.visible.append(seen)
            self.answered.append(time.perf_counter() - began)

    def sync(self):
        """As a database's log does it: 4 KiB in place."""
        os.pwrite(self.disk, bytes(4096), self.count % 256 * 4096)
        os.fdatasync(self.disk)


class Flood:
    """Admin requests at a fixed rate: reads of every kind, and changes as far as the disk allows. The load generator makes
    them, so that no other program takes turns with it."""

    READS = [request("GET", path) for path in (
        "/api/v1/status", "/api/v1/rollouts/default", "/api/v1/rollouts", f"{USERS}/mover-0", f"{USERS}?limit=20",
        "/api/v1/history?limit=10", "/api/v1/segments")]
    CHANGES = [request("PUT", f"{USERS}/mover-{turn % MOVERS}", f'{{"release":"{("canary", "stable")[turn // MOVERS]}"}}')
               for turn in range(2 * MOVERS)]

    def __init__(self, site):
        self.file, self.reads, self.changes, self.failed, self.seconds = site.folder / "flood.json", 0, 0, 0, 0.0
        self.file.write_text(json.dumps({
            "addr": f"127.0.0.1:{site.admin}", "rate": FLOOD_RATE, "connections": FLOOD_CONNECTIONS, "writers": FLOOD_WRITERS,
            "change_each": FLOOD_WRITE_EACH, "reads": [r.decode() for r in self.READS],
            "changes": [r.decode() for r in self.CHANGES]}))

    def flags(self):
        return ["-flood", str(self.file)]

    def add(self, seen):
        flood = seen["flood"]
        self.reads += flood["reads"]
        self.changes += flood["changes"]
        self.failed += flood["errors"]
        self.seconds += seen["seconds"]
        if flood["error_kinds"]:
            note(f"errors of the flood: {flood['error_kinds']}")


class Replacing:
    """One segment, which the rollout's targets ask for, replaced again and again by other users."""

    PATH = "/api/v1/segments/many"
    LISTS = 2

    def __init__(self, site, users):
        self.site, self.took, self.turn = site, [], 0
        self.lists = [site.folder / f"many-{n}" for n in range(self.LISTS)]
        for n, file in enumerate(self.lists):
            file.write_text("".join(f"{2_000_000_000 + self.LISTS * user + n}\n" for user in range(users)))
        admin = Connection(site.admin)
        self.replace(admin)
        targets = '{"targets":[{"segment":"many","release":"canary"}]}'
        site.change(admin, "PATCH", "/api/v1/rollouts/default", targets, self.revision(admin, "/api/v1/rollouts/default"))

    def revision(self, admin, path):
        status, said = admin.ask(request("GET", path))
        return f'If-Match: "{json.loads(said)["revision"]}"\r\n' if status == 200 else ""

    def replace(self, admin):
        file = self.lists[self.turn % self.LISTS]
        self.turn += 1
        seconds, (status, said) = timed(lambda: send_list(admin, "PUT", self.PATH, file, self.revision(admin, self.PATH)))
        if status != 200:
            raise peers.Failed(f"a segment was refused: {status} {said.decode(errors='replace')}")
        self.took.append(seconds)

    def run(self, end):
        self.behind(lambda: self.again(end, 0.0))

    def paced(self, each):
        return lambda end: self.behind(lambda: self.again(end, each))

    def again(self, end, each):
        admin, due = Connection(self.site.admin), time.monotonic()
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(min(due, end) - now)
                continue
            due += each
            self.replace(admin)

    def behind(self, work):
        """On a thread that gives way to the load, which shares its core and is what is measured."""
        failed = []
        def run():
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
            try:
                work()
            except (OSError, peers.Failed) as problem:
                failed.append(problem)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]


def rounds(site, rate, count, seconds, beside=None, flood=None, instead=None):
    """Alternates without, or with what is done `instead`, and with; of each the latencies' medians in µs, and all failures."""
    without, with_it, errors = [], [], 0
    for number in range(count):
        plain = site.load(rate, seconds, instead)
        moved = site.load(rate, seconds, beside, flood.flags() if flood else ())
        if flood:
            flood.add(moved)
        errors += plain["errors"] + moved["errors"]
        for kinds in (plain["error_kinds"], moved["error_kinds"]):
            if kinds:
                note(f"errors: {kinds}")
        without.append(plain["latency_us"])
        with_it.append(moved["latency_us"])
        note(f"round {number + 1}: p99 {plain['latency_us']['p99']:.0f} µs without, {moved['latency_us']['p99']:.0f} µs with; "
             f"its core {plain['cpu_seconds'] / plain['seconds']:.0%} and {moved['cpu_seconds'] / moved['seconds']:.0%}")
    each = {}
    for key in ("p50", "p99"):
        each[key] = (statistics.median(r[key] for r in without), statistics.median(r[key] for r in with_it),
                     statistics.median(b[key] / a[key] for a, b in zip(without, with_it)))
    return each, errors


# --- importing ------------------------------------------------------------------------------------------------------

def one_move(site, admin):
    """The median time to the answer of one user's move, in milliseconds."""
    each = []
    for turn in range(MOVES_TIMED):
        body = f'{{"release":"{("canary", "stable")[turn % 2]}"}}'
        each.append(timed(lambda: site.change(admin, "PUT", f"{USERS}/one", body))[0])
    return 1e3 * statistics.median(each)


def imported(site, users):
    """On a fresh store: seconds, memory in MiB, moves before and after in ms, seconds to be ready again."""
    site.stop()
    for file in site.folder.glob("rollouts.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    site.start()
    admin = Connection(site.admin)
    before = one_move(site, admin)
    listed = site.folder / "import"
    listed.write_text("".join(f"user-{n:08d}\n" for n in range(users)))
    seconds, (status, said) = timed(lambda: send_list(admin, "POST", f"{USERS}?release=canary", listed))
    if status != 200:
        raise peers.Failed(f"the import was refused: {status} {said.decode(errors='replace')}")
    # The first change cuts the log to its length, and the file system gives the disk its blocks back for a while.
    one_move(site, admin)
    time.sleep(SETTLE_SECONDS)
    peak, final = site.memory("VmHWM"), site.memory("VmRSS")
    after = one_move(site, admin)
    site.stop()
    return seconds, peak, final, before, after, site.start(), site.memory("VmRSS")


# --- all of it ------------------------------------------------------------------------------------------------------

def note(text):
    print(text, file=sys.stderr, flush=True)


def measure(site, wanted):
    """Rows of the table, and how many requests failed."""
    site.start()
    rate, share = sustained_rate(site, wanted.rate)
    moves, before = Moves(site), site.commits()
    felt, errors = rounds(site, rate, wanted.rounds, wanted.seconds, moves.run, instead=moves.look)
    lived = {bound: count - before[bound] for bound, count in site.commits().items()}
    failed = errors + moves.failed
    of = {share: [1e3 * rank(values, share) for values in (moves.visible, moves.synced)] for share in (0.5, 0.99)}
    rows = [("rate", f"{rate:,} requests/s, {share:.0%} of the proxy's core", "")]
    for share, name, bar in ((0.5, "p50", ""), (0.99, "p99", "at most 5 ms")):
        visible, sync = of[share]
        rows.append((f"asked to visible, {name}, beyond the disk's sync",
                     f"{visible - sync:.2f} ms ({visible:.2f} ms less {sync:.2f} ms; {len(moves.visible)} moves)", bar))
    soon = [lived[bound] / lived[math.inf] for bound in (0.0025, 0.005)]
    rows.append(("commit to visible, the disk's sync included, as the program counts it",
                 f"{soon[0]:.2%} within 2.5 ms, {soon[1]:.2%} within 5 ms, of {lived[math.inf]}", "99% within 5 ms beyond the sync"))
    for name, bar in (("p50", ""), ("p99", "at most 1.10")):
        plain, moved, ratio = felt[name]
        rows.append((f"requests' {name} with changes", f"{ratio:.2f} ({plain:.0f} → {moved:.0f} µs)", bar))
    rows.append(("requests failed", str(failed), "0"))
    flood = Flood(site)
    seconds = (60 if wanted.long else 15) / wanted.rounds
    felt, errors = rounds(site, rate, wanted.rounds, seconds, flood=flood)
    plain, moved, ratio = felt["p99"]
    rows.append(("admin flood reached", f"{(flood.reads + flood.changes) / flood.seconds:,.0f}/s, of them "
                 f"{flood.changes / flood.seconds:,.0f} changes; {flood.failed} failed", f"{FLOOD_RATE:,}/s, 0 failed"))
    rows.append(("requests' p99 with the flood", f"{ratio:.2f} ({plain:.0f} → {moved:.0f} µs)", "at most 1.20"))
    rows.append(("requests failed", str(errors), "0"))
    failed += errors + flood.failed
    replacing = Replacing(site, wanted.members)
    each = wanted.seconds * wanted.rounds / REPLACEMENTS
    for how, beside in ((f"each {each:.2f} s", replacing.paced(each)), ("without a pause", replacing.run)):
        replacing.took.clear()
        felt, errors = rounds(site, rate // 2, wanted.rounds, wanted.seconds, beside)
        plain, moved, ratio = felt["p99"]
        what = f"a segment of {wanted.members:,} is replaced {len(replacing.took)} times, {how}"
        rows.append((f"requests' p99 at half that rate while {what}",
                     f"{ratio:.2f} ({plain:.0f} → {moved:.0f} µs); {statistics.median(replacing.took):.2f} s each",
                     "at most 1.10"))
        rows.append(("requests failed", str(errors), "0"))
        failed += errors
    took, peak, final, before, after, again, fresh = imported(site, wanted.users)
    rows += [
        (f"import of {wanted.users:,} users", f"{took:.2f} s", "at most 5 s"),
        ("its peak memory to the final", f"{peak / final:.2f} ({peak:.0f} to {final:.0f} MiB; {fresh:.0f} MiB after a restart)", "at most 3"),
        ("one user's move after to before", f"{after / before:.2f} ({before:.2f} → {after:.2f} ms)", "about 1"),
        ("restart until ready", f"{again:.2f} s", ""),
    ]
    return rows, failed


def main():
    wanted, settings = options(), peers.Settings()
    if len(settings.cores) < 2:
        raise peers.Failed("two cores are needed: one for the proxy, one for load and origins")
    peers.install_missing()
    os.sched_setaffinity(0, {settings.cores[-1]})
    target = ROOT / "target"
    with tempfile.TemporaryDirectory(prefix="bench-switching-", dir=target) as temporary:
        folder = Path(temporary)
        load = peers.build_go(HERE.parent / "peers" / "load", folder / "load")
        (folder / "cycle").write_text("".join(f"other {1_000_000 + 3 * n}\n" for n in range(CYCLE_USERS)))
        ports = {"stable": peers.free_port(), "canary": peers.free_port()}
        origin = peers.start_origin(settings, folder, ports)
        site = Site(folder, settings, load, origin, ports)
        try:
            rows, failed = measure(site, wanted)
        finally:
            site.stop()
            origin.stop()
    lines = ["| | measured | bar |", "|---|---|---|", *(f"| {what} | {got} | {bar} |" for what, got, bar in rows)]
    text = "\n".join([f"{wanted.rounds} alternating rounds; medians of the rounds' figures and ratios.", "", *lines, ""])
    print(text)
    (target / "bench-switching.md").write_text(text)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except peers.Failed as problem:
        sys.exit(f"bench-switching: {problem}")
