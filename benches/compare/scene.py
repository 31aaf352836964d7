"""What is the same for every proxy: names, networks, requests, credentials, certificates, directories, cores.

Everything lives in one private directory that goes with the run. The credentials are made up and are worth nothing.
"""

import base64
import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

# The upstream's name; its certificate is for it alone.
UPSTREAM_NAME = "localhost"
CLIENT_ID = "00000000-compare-client-id"
API_KEY = "d41d8cd98f00b204e9800998ecf8427e"
BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{API_KEY}".encode()).decode()

# Who may call: 16 networks, with the load's address in the last of them. 127.0.0.9 is in none.
ALLOWED_NETWORKS = [f"10.{n}.0.0/16" for n in range(20, 35)] + ["127.0.0.1/32"]
REFUSED_ADDRESS = "127.0.0.9"

# Real operations of MX's Platform API, one for each size of answer.
USER = "/users/USR-11141024-90b3-1bce-cac9-c06ced52ab4c"
SMALL, MEDIUM, LARGE = f"{USER}/accounts", f"{USER}/transactions", f"{USER}/members"
BODY_BYTES = {SMALL: 1_200, MEDIUM: 64 * 1024, LARGE: 1024 * 1024}

# What a caller may not get through. Each proxy has to drop every one of them.
CALLERS_OWN = {
    "Authorization": "Bearer callers-own-1",
    "Proxy-Authorization": "Basic callers-own-2",
    "Cookie": "session=callers-own-3",
    "MX-API-Key": "callers-own-4",
    "MD-API-Key": "callers-own-5",
    "X-API-Key": "callers-own-6",
}
# What the load sends with each request, as a service with an MX client does.
CALLERS_HEADERS = {
    "User-Agent": "OpenAPI-Generator/1.0/python",
    "Accept": "application/vnd.mx.api.v1+json",
    "Authorization": CALLERS_OWN["Authorization"],
    "Cookie": CALLERS_OWN["Cookie"],
}


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Fault(Exception):
    """The comparison cannot be made, or a figure would not mean what it says."""


class Missing(Fault):
    """Something that the comparison needs is not on this machine."""


@dataclasses.dataclass(frozen=True)
class Cores:
    """Who runs where. Load and upstream get cores of their own as far as there are any."""

    proxy: frozenset
    rest: frozenset


def cores(workers):
    """One worker: the proxy alone on one core, the rest elsewhere. Several: all share where there are not enough."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Missing("the comparison needs two cores: one for a proxy, one for load and upstream")
    if workers < len(usable) and (workers == 1 or len(usable) >= 2 * workers):
        return Cores(frozenset(usable[:workers]), frozenset(usable[workers:]))
    return Cores(frozenset(usable), frozenset(usable))


@contextlib.contextmanager
def on(usable):
    """What is started in it runs on these cores; None: on all. It inherits that: no program comes in between."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, usable or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Scene:
    """One run's directory, with the certificates in it.

    `upstream.pem` is what a proxy may talk to: from `ca.pem`, for the upstream's name. `wrong-ca.pem` comes from
    another CA, `wrong-name.pem` is for another name. The key of NAME.pem is NAME-key.pem.
    """

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="mxgate-compare-"))
        self._made = 0
        certificates(self.directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    def file(self, name):
        return self.directory / name

    def fresh(self, name):
        """A new private directory."""
        self._made += 1
        made = self.directory / f"{name}-{self._made}"
        made.mkdir(mode=0o700)
        return made


def certificates(directory):
    """A CA with a leaf, not one certificate for both: webpki refuses a CA's certificate as a server's."""
    for name in ("ca", "other-ca"):
        openssl(
            directory,
            "req",
            "-x509",
            *KEY,
            "-days",
            "2",
            "-subj",
            f"/CN=compare {name}",
            "-keyout",
            f"{name}-key.pem",
            "-out",
            f"{name}.pem",
        )
    leaf(directory, "upstream", "ca", UPSTREAM_NAME)
    leaf(directory, "wrong-ca", "other-ca", UPSTREAM_NAME)
    leaf(directory, "wrong-name", "ca", "other.example")


def leaf(directory, name, ca, host):
    """A server's certificate for one host."""
    extensions = f"subjectAltName=DNS:{host}\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n"
    (directory / "leaf.ext").write_text(extensions)
    openssl(directory, "req", *KEY, "-subj", f"/CN={host}", "-keyout", f"{name}-key.pem", "-out", "leaf.csr")
    openssl(
        directory,
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        f"{ca}.pem",
        "-CAkey",
        f"{ca}-key.pem",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "leaf.ext",
        "-out",
        f"{name}.pem",
    )


def openssl(directory, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise Fault(f"openssl {arguments[0]}: {done.stderr.strip()}")


def render(template, values):
    """A configuration: `configs/TEMPLATE` with each `@NAME@` replaced. A name that is left over is a fault."""
    text = (HERE / "configs" / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    left = re.findall("@[A-Z_]+@", text)
    if left:
        raise Fault(f"configs/{template}: nothing replaces {left}")
    return text


def free_port():
    """A port that nobody listens on just now, chosen by the kernel."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what):
    """Asks again until it is true; a fault after that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Fault(f"{what}: not within {seconds} s")
        time.sleep(0.01)
