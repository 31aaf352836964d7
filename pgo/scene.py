"""A gateway and MX's stand-in, and what a service asks of them all day: what the program is trained with, and judged by."""

import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 60

KEY = "0123456789012345678901234567890123456789"
USER = "USR-fa7537f3-48aa-a683-a02a-b18940482f54"
FIELDS = "Host: localhost\r\nAccept: application/vnd.mx.api.v1+json\r\nAccept-Version: v20250224\r\nAuthorization: Basic Og==\r\n"
JSON = f"{FIELDS}Content-Type: application/json\r\n"
BODY = '{"user":{"id":"trained"}}'
CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
# Most of it is a name that nobody has.
LARGE = f'{{"user":{{"id":"trained","metadata":"{"x" * (1 << 18)}"}}}}'

# What a service asks all day.
USUAL = [
    f"GET /users/{USER}/members?page=1&records_per_page=100 HTTP/1.1\r\n{FIELDS}\r\n",
    f"GET /users?records_per_page=10 HTTP/1.1\r\n{FIELDS}\r\n",
    f"POST /users HTTP/1.1\r\n{JSON}Content-Length: {len(BODY)}\r\n\r\n{BODY}",
]

# Now and then: answers and bodies of a quarter of a megabyte.
LONG = [
    f"GET /users?records_per_page=1000 HTTP/1.1\r\n{FIELDS}\r\n",
    f"POST /users HTTP/1.1\r\n{JSON}Content-Length: {len(LARGE)}\r\n\r\n{LARGE}",
]

# And what happens as well.
UNUSUAL = [
    f"POST /users HTTP/1.1\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}",
    f"DELETE /users/{USER} HTTP/1.1\r\n{FIELDS}\r\n",
    f"GET /nothing HTTP/1.1\r\n{FIELDS}\r\n",
    f"GET /institutions HTTP/1.1\r\n{FIELDS}\r\n",
    f"PUT /users HTTP/1.1\r\n{FIELDS}\r\n",
]

CONFIGURATION = """
allow = ["127.0.0.0/8"]

[[caller]]
name = "trained"
networks = ["127.0.0.0/8"]
grant = {{ mx = ["read", "write", "-listInstitutions"] }}

[[listener]]
address = "127.0.0.1:0"
environment = "mx"

[environment.mx]
url = "https://127.0.0.1:{upstream}"
ca_file = "{folder}/ca.pem"
credential = {{ kind = "basic", client_id = "trained", api_key = "vault:mx/api_key" }}
private_addresses = "allowed"

[vault]
kind = "file"
path = "{folder}/vault.age"
identity = "file:{folder}/identity"

[health]
address = "127.0.0.1:0"

[control]
socket = "{folder}/control.sock"

[record]
destination = "file:{folder}/records"

[process]
workers = 2
"""

# One of other environments. With the secrets of many, the search for all of them in what goes out is another one.
OTHER = """
[environment.other-{number}]
url = "https://127.0.0.1:{upstream}"
credential = {{ kind = "basic", client_id = "trained", api_key = "file:{folder}/key-{number}" }}
private_addresses = "allowed"
"""


class Gateway:
    """One that runs, in a folder of its own, with the stand-in behind it, and so many other environments."""

    def __init__(self, stack, binary, environment=None, others=0):
        self.binary = binary
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mxgate-pgo-")))
        upstream = self._stand_in(stack)
        vault = [binary, "vault", "--vault", self.folder / "vault.age", "--identity", f"file:{self.folder}/identity"]
        self.run([*vault, "init"])
        self.run([*vault, "set", "mx/api_key", "--host", "127.0.0.1"], KEY)
        configuration, text = self.folder / "mxgate.toml", CONFIGURATION.format(upstream=upstream, folder=self.folder)
        for number in range(others):
            private(self.folder / f"key-{number}", f"{number:04}{KEY[4:]}")
            text += OTHER.format(number=number, upstream=upstream, folder=self.folder)
        private(configuration, text)
        command = [binary, "run", "--config", configuration]
        self.process = start(stack, command, self.folder / "gateway.log", environment or {})
        up = r'is up.*listeners="127\.0\.0\.1:(\d+).*health="?127\.0\.0\.1:(\d+)'
        found = wait_for(self.process, self.folder / "gateway.log", up)
        self.port, self.health = int(found[1]), int(found[2])

    def _stand_in(self, stack):
        private(self.folder / "key", KEY)
        command = [self.binary, "stand-in", "--listen", "127.0.0.1:0", "--ca-out", self.folder / "ca.pem"]
        command += ["--client-id", "trained", "--api-key-file", self.folder / "key", "--list-entries", "1000"]
        process = start(stack, command, self.folder / "upstream.log", {})
        return wait_for(process, self.folder / "upstream.log", r"at https://127\.0\.0\.1:(\d+)")[1]

    def run(self, command, given=None):
        """A command of the same program, which leaves no counts."""
        quiet = {"stdout": subprocess.DEVNULL, "env": {"LLVM_PROFILE_FILE": "/dev/null"}}
        subprocess.run(command, check=True, input=given, text=True, **quiet)

    def control(self, command):
        self.run([self.binary, command, "--socket", self.folder / "control.sock"])

    def connections(self, stack, count):
        address = ("127.0.0.1", self.port)
        return [stack.enter_context(contextlib.closing(socket.create_connection(address))) for _ in range(count)]

    def end(self):
        self.process.terminate()
        if self.process.wait(PATIENCE):
            sys.exit(f"pgo: the gateway ended with {self.process.returncode}")


def ask(connection, request):
    """Sends one request and reads its whole answer. Gives its status."""
    connection.sendall(request.encode())
    read = b""
    while True:
        head, end, body = read.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            if length is None or len(body) >= int(length[1]):
                return int(head.split(b" ")[1])
        piece = connection.recv(1 << 16)
        if not piece:
            sys.exit(f"pgo: the gateway closed the connection after {request.splitlines()[0]}: {read!r}")
        read += piece


def private(path, text):
    path.touch(mode=0o600)
    path.write_text(text)


def start(stack, command, log, environment):
    with open(log, "wb") as output:
        environment = {"LLVM_PROFILE_FILE": "/dev/null", **environment}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)

    def end():
        process.kill()
        process.wait()

    stack.callback(end)
    return process


def wait_for(process, log, pattern):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found
        time.sleep(0.05)
    sys.exit(f"pgo: it did not start: ...{log.read_text(errors='replace')[-1500:]}")
