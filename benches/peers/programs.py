"""The programs that a comparison needs: found, installed or built."""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CADDY = "v2.11.9"


class Failed(Exception):
    """Something that the reader must see; no stack trace helps."""


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


def build_caddy(target):
    """The program, kept in target/ for the next time, or None where it cannot be had."""
    program = target / "peers" / CADDY / "caddy"
    if program.exists():
        return str(program)
    print(f"building Caddy {CADDY}: a few minutes, once", file=sys.stderr)
    done = subprocess.run(["go", "install", f"github.com/caddyserver/caddy/v2/cmd/caddy@{CADDY}"],
                          env=os.environ | {"GOBIN": str(program.parent)}, capture_output=True, text=True)
    if done.returncode:
        print(f"skipped: Caddy cannot be built: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return str(program)


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
