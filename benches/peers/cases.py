"""The cases of the comparison beside GET with 200-byte answers over kept connections, as data, and their table."""

import resource
import statistics
from dataclasses import dataclass

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


def ratio(rounds, base, figure):
    """The median of the rounds' ratios: a slow minute slows both. For want of either, a dash."""
    if not rounds or not base:
        return "–"
    return f"{statistics.median(a[figure] / b[figure] for a, b in zip(rounds, base)):.2f}"


def table(peers, cases):
    """Rows peers, columns cases, medians; below them Switchyard's ratios."""
    def row(name, cells):
        return f"| {name} | " + " | ".join(cells) + " |"

    def cell(peer, case):
        rounds = peer.cases.get(case.key)
        if not rounds:
            return "failed" if case.key in peer.case_failures else "–"
        return f"{statistics.median(r[case.figure] for r in rounds):,.1f}"

    lines = [row("CPU µs a request", [c.title for c in cases]), "|---|" + "--:|" * len(cases)]
    lines += [row(p.name, [cell(p, c) for c in cases]) for p in peers]
    bases = {"bare Pingora": "bare/", "HAProxy": "haproxy"}
    for p in (p for p in peers if p.key.startswith("switchyard/")):
        for name, prefix in bases.items():
            base = next((b for b in peers if b.key.startswith(prefix)), None)
            if base:
                lines.append(row(f"{p.name} to {name}", [ratio(p.cases.get(c.key), base.cases.get(c.key), c.figure) for c in cases]))
    return lines
