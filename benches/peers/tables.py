"""What a run has measured, as Markdown."""

import platform
import statistics
import time
from pathlib import Path

from cases import idle_connections

DISTURBED_SHARE = 0.05  # of a core taken by other programs


def median(peer, key):
    return statistics.median(r[key] for r in peer.rounds)


def ratio(rounds, base, figure):
    """The median of the rounds' ratios: a slow minute slows both. For want of either, a dash."""
    if not rounds or not base:
        return "–"
    return f"{statistics.median(a[figure] / b[figure] for a, b in zip(rounds, base)):.2f}"


def ratio_to(peer, base, key):
    return ratio(peer.rounds, base.rounds if base else [], key)


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
            f"| {p.name} | {median(p, 'cpu_us'):.1f} | {ratio_to(p, gin, 'cpu_us')} | {ratio_to(p, bare, 'cpu_us')} "
            f"| {median(p, 'rps'):,.0f} | {ratio_to(p, gin, 'rps')} "
            f"| {median(p, 'p50_us'):,.0f} | {median(p, 'p99_us'):,.0f} "
            f"| {max(r['memory'] for r in p.rounds) / 2**20:,.0f} | {sum(r['errors'] for r in p.rounds)} |")
    return lines


def case_table(peers, cases):
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
                ratios = [ratio(p.cases.get(c.key), base.cases.get(c.key), c.figure) for c in cases]
                lines.append(row(f"{p.name} to {name}", ratios))
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


def case_doubts(peers, cases):
    for c in (c for c in cases if c.key != "200"):
        measured = [(p, p.cases[c.key]) for p in peers if c.key in p.cases]
        foreign = max((statistics.median(r.get("foreign_share", 0) for r in rounds) for _, rounds in measured), default=0)
        if foreign > DISTURBED_SHARE:
            yield f"{c.title}: other programs took up to {foreign:.0%} of a core: measure again on a quiet machine."
        for p, rounds in measured:
            if errors := sum(r["errors"] for r in rounds):
                yield f"{c.title}: {p.name} had {errors} errors."
        for p in (p for p in peers if c.key in p.case_failures):
            yield f"{c.title}: {p.name} {p.case_failures[c.key]}"


def report(settings, peers, cases):
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    lines = [f"{time.strftime('%Y-%m-%d')}, {cpu}, {len(settings.cores)} cores, Linux {platform.release()}. Access logs on. "
             "Medians; ratios are medians of the rounds' ratios; memory is the highest.", ""]
    if any(c.key == "200" for c in cases):
        lines += [f"{settings.rounds} alternating rounds of {settings.seconds:g} s saturated ({settings.connections} "
                  f"connections) and {settings.seconds:g} s at {settings.rate:,} requests/s:", "", *table(peers), ""]
    if [c.key for c in cases] != ["200"]:
        lines += [f"{settings.case_rounds} alternating rounds of {settings.case_seconds:g} s a case, saturated "
                  f"({settings.connections} connections), or {idle_connections():,} held without a request; "
                  "200 B as above:", "", *case_table(peers, cases), ""]
    lines.append("Versions: " + "; ".join(dict.fromkeys(f"{p.name}: {p.version}" for p in peers)) + ".")
    lines += [f"- {line}" for line in [*doubts(peers), *case_doubts(peers, cases)]]
    return "\n".join([*lines, ""])
