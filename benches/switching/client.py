"""HTTP/1.1 on kept-alive connections, by hand: what is measured is the server, not a library."""

import socket
import time

from programs import Failed  # of the peers: whoever imports this has their folder on the path

TIMEOUT_SECONDS = 120


class Connection:
    """One request at a time."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(True)  # an import takes as long as it takes
        self.have = b""

    def send(self, request):
        self.socket.sendall(request)

    def receive(self):
        """Takes in what has come; (status, body) when the answer is whole, else None."""
        part = self.socket.recv(65536)
        if not part:
            raise OSError("closed before the answer")
        self.have += part
        head, found, body = self.have.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if len(body) < length:
            return None
        self.have = b""
        return int(head[9:12]), body

    def answer(self):
        while (whole := self.receive()) is None:
            pass
        return whole

    def ask(self, request):
        self.send(request)
        return self.answer()


def request(method, path, body="", fields=""):
    kind = "Content-Type: application/json\r\n" if body else ""
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{fields}"
            f"Content-Length: {len(body)}\r\n\r\n{body}").encode()


def timed(work):
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def rank(values, share):
    """The nearest rank, or 0 where there is nothing."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def wait_ready(process, admin, seconds):
    """Returns once the program says that it is ready, at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.child.poll() is not None:
            raise Failed(f"it ended: {process.tail()}")
        try:
            if Connection(admin).ask(request("GET", "/readyz"))[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.002)
    raise Failed(f"it is not ready: {process.tail()}")
