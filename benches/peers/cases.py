"""The cases of the comparison beside GET with 200-byte answers over kept connections, as data."""

import resource
from dataclasses import dataclass

BODY_BYTES = 200
LONG_BODY_BYTES = 10 << 10
HUGE_BODY_BYTES = 1 << 20
IDLE_CONNECTIONS = 10_000
IDLE_SHARE = 0.35  # of the limit of open files: Switchyard keeps six tenths of it for upstream connections


@dataclass(frozen=True)
class Case:
    key: str  # in CASES=
    title: str
    flags: tuple  # of the load beside address and users
    figure: str = "cpu_us"  # what the table shows of a round
    secure: bool = False


CASES = (
    Case("200", "200 B", ()),
    Case("chunks", "200 B in chunks", ("-path", "/chunks/200")),
    Case("10k", "10 KiB", ("-path", "/files/10k", "-body", str(LONG_BODY_BYTES))),
    Case("1m", "1 MiB", ("-path", "/files/1m", "-body", str(HUGE_BODY_BYTES))),
    Case("post", "POST 10 KiB", ("-path", "/post", "-post", str(LONG_BODY_BYTES))),
    Case("new", "new connection", ("-fresh",)),
    Case("tls", "TLS 1.3", ("-tls",), secure=True),
    Case("tls-new", "TLS handshake", ("-tls", "-fresh"), secure=True),
    Case("idle", "idle, KiB each", (), figure="idle_kib"),
)


def idle_connections():
    """Fewer than the 10,000 where the limit of open files asks for it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return IDLE_CONNECTIONS if soft == resource.RLIM_INFINITY else min(IDLE_CONNECTIONS, int(soft * IDLE_SHARE))


def chosen(words):
    """The cases that `CASES=` names, in the table's order; a ValueError for a word that is none."""
    words = ["200"] if not words else [c.key for c in CASES] if words == ["all"] else words
    if unknown := set(words) - {c.key for c in CASES}:
        raise ValueError(f"CASES={','.join(sorted(unknown))}: write `all`, or some of {','.join(c.key for c in CASES)}")
    return [c for c in CASES if c.key in words]
