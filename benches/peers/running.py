"""A program that runs, and a request to it."""

import glob
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from programs import Failed

READY_SECONDS = 60
STOP_SECONDS = 5


class Process:
    """A program pinned to one core, its children with it."""

    def __init__(self, name, core, command, folder):
        self.log = folder / f"{name}.out"
        environment = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
        with open(self.log, "w") as out:
            self.child = subprocess.Popen(["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, env=environment, cwd=folder, process_group=0)

    def wait_for(self, port, tls_port=0):
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failed(f"ended with {self.child.returncode}: {self.tail()}")
            try:
                if request(port, "/", "1")[0] == 200:
                    socket.create_connection(("127.0.0.1", tls_port or port), timeout=5).close()
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
