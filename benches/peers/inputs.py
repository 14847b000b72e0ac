"""What the programs read: configurations, users, bodies and a certificate."""

import socket
import subprocess
from pathlib import Path

from cases import BODY_BYTES, HUGE_BODY_BYTES, LONG_BODY_BYTES

HERE = Path(__file__).resolve().parent
LISTED_USERS = 100_000
CYCLE_USERS = 10_000  # half of them listed; the load goes through them again and again


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


def write_bodies(folder):
    """The files that the origin answers with; each begins with its release."""
    sizes = {"200": BODY_BYTES, "10k": LONG_BODY_BYTES, "1m": HUGE_BODY_BYTES}
    for release in ("stable", "canary"):
        (folder / "files" / release).mkdir(parents=True)
        for name, size in sizes.items():
            (folder / "files" / release / name).write_text(f"{release} ".ljust(size, "x"))


def write_users(folder):
    listed = [str(1_000_000 + 7 * i) for i in range(LISTED_USERS)]
    (folder / "users").write_text("".join(f"{u}\n" for u in listed))
    (folder / "users.nginx").write_text("".join(f'"{u}" canary;\n' for u in listed))
    (folder / "users.haproxy").write_text("".join(f"{u} canary\n" for u in listed))
    step = LISTED_USERS // (CYCLE_USERS // 2)
    cycle = [f"listed {u}\nother {int(u) + 3}\n" for u in listed[::step]]
    (folder / "cycle").write_text("".join(cycle))
    return "[" + ", ".join(f'"{u}"' for u in listed) + "]"


def make_certificate(folder):
    """For TLS, thrown away with the folder."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=shop.example.com", "-addext", "subjectAltName=DNS:shop.example.com",
                    "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)
    (folder / "tls.pem").write_text((folder / "tls.crt").read_text() + (folder / "tls.key").read_text())
