#!/usr/bin/env python3
"""Counts the instructions of a decision and of one forwarded request, and compares them with those that are kept.

    run.py [--write]

Instructions do not depend on what else the machine does, so a regression shows on a busy one, too. They do depend on the
compiler and on the libraries: what is kept names the compiler, and another one compares nothing. `--write` keeps what was
counted. Needs valgrind. Exit status: 0, or 1 when something takes more than TOLERANCE longer than before.
"""

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = HERE / "kept.json"
TOLERANCE = 0.03
DECIDED = ("listed user", "by hash, after all targets", "nobody, after all targets", "killed")
DECISIONS = 20_000
WARM_UP, REQUESTS = 500, 3_000
READY_SECONDS = 120
LISTED = 100_000

sys.dont_write_bytecode = True  # nothing is left beside the sources
sys.path[:0] = [str(ROOT / "benches" / "switching"), str(ROOT / "benches" / "peers")]
from client import Connection, request  # noqa: E402
from inputs import free_port  # noqa: E402
from programs import Failed  # noqa: E402


def need_valgrind():
    if shutil.which("valgrind"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing valgrind", file=sys.stderr)
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", "valgrind"], stdout=subprocess.DEVNULL)
    if not shutil.which("valgrind"):
        raise Failed("valgrind counts the instructions: install it, e.g. `apt-get install valgrind`")


def total(file):
    return int(re.search(r"^(?:summary|totals): (\d+)", Path(file).read_text(), re.MULTILINE)[1])


def callgrind(folder, *more):
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *more]


def newest(name):
    built = [p for p in glob.glob(str(ROOT / f"target/release/deps/{name}-*")) if os.access(p, os.X_OK)]
    if not built:
        raise Failed(f"`cargo bench --bench {name} --no-run` builds what is counted")
    return max(built, key=os.path.getmtime)


def decided(folder):
    """Instructions of a decision: what twice as many take more, by the number of them."""
    program, counted = newest("decide"), {}
    for case in DECIDED:
        counts = []
        for times in (DECISIONS, 2 * DECISIONS):
            subprocess.run([*callgrind(folder), program, "count", case, str(times)], check=True)
            counts.append(total(folder / "out"))
        counted[f"decide: {case}"] = round((counts[1] - counts[0]) / DECISIONS)
    return counted


def origin(listening):
    """Answers 200 bytes to whatever comes."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n" + b"x" * 200
    def serve(connection):
        with connection:
            while connection.recv(65536):
                connection.sendall(answer)
    def accept():
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def configuration(folder, ports):
    text = (ROOT / "benches/switching/switchyard.yaml.in").read_text()
    for key, value in ports.items():
        text = text.replace(f"@{key}@", str(value))
    users = "".join(f'      "{1_000_000 + 7 * n}": canary\n' for n in range(LISTED))
    (folder / "switchyard.yaml").write_text(text + "    users:\n" + users)
    return str(folder / "switchyard.yaml")


def wait_ready(child, port):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise Failed("the program ended before it served")
        try:
            return Connection(port)
        except OSError:
            time.sleep(0.1)
    raise Failed(f"it is not ready after {READY_SECONDS} s")


def forwarded(folder):
    """Instructions of one request through the program, on one connection, one at a time; a listed user's."""
    listening = socket.create_server(("127.0.0.1", 0))
    origin(listening)
    there = listening.getsockname()[1]
    http, admin = free_port(), free_port()
    config = configuration(folder, {"DIR": folder, "LISTEN": http, "ADMIN": admin, "STABLE": there, "CANARY": there})
    program = os.environ.get("SWITCHYARD_BIN", str(ROOT / "target/release/switchyard"))
    child = subprocess.Popen([*callgrind(folder, "--separate-threads=no"), program, "serve", "-c", config],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connection = wait_ready(child, http)
        ask = request("GET", "/path?query=1", fields="X-User-Id: 1000007\r\nUser-Agent: bench\r\nAccept: */*\r\n"
                      "Origin: https://shop.example.com\r\n")
        def many(count):
            for _ in range(count):
                status, _body = connection.ask(ask)
                if status != 200:
                    raise Failed(f"a request was answered with {status}")
        many(WARM_UP)
        control(child, "--zero")
        many(REQUESTS)
        control(child, "--dump")
        return {"one forwarded request": round(total(newest_dump(folder)) / REQUESTS)}
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()


def newest_dump(folder):
    return max(folder.glob("out.*"), key=lambda path: path.stat().st_mtime_ns)


def control(child, what):
    subprocess.run(["callgrind_control", what, str(child.pid)], check=True, stdout=subprocess.DEVNULL)


def compiler():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def report(counted, kept):
    """Prints each beside what is kept; whether none is worse."""
    comparable = kept.get("compiler") == compiler()
    if not comparable:
        print(f"kept for {kept.get('compiler', 'nothing')}, this is {compiler()}: `--write` keeps what was counted")
    fine = True
    for what, count in counted.items():
        before = kept.get("instructions", {}).get(what)
        change = f"{count / before - 1:+.1%}" if before else "new"
        worse = bool(before) and count > before * (1 + TOLERANCE)
        print(f"{what:40} {count:>9,} {before or 0:>9,} {change:>7}{'  WORSE' if worse and comparable else ''}")
        fine &= not (worse and comparable)
    return fine


def main():
    need_valgrind()
    with tempfile.TemporaryDirectory(prefix="bench-check-", dir=ROOT / "target") as temporary:
        folder = Path(temporary)
        counted = decided(folder) | forwarded(folder)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print(f"{'instructions':40} {'now':>9} {'kept':>9}")
    fine = report(counted, kept)
    if "--write" in sys.argv[1:]:
        KEPT.write_text(json.dumps({"compiler": compiler(), "instructions": counted}, indent=2) + "\n")
        return 0
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as problem:
        sys.exit(f"bench-check: {problem}")
