"""Processes that the comparison starts, and single requests to them."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections import namedtuple

import scene

Answer = namedtuple("Answer", "status headers body")

# Asked for by this name, a proxy is given at most this long to serve, and to end.
START_SECONDS = 20
STOP_SECONDS = 10


class Process:
    """A program with its output in `DIRECTORY/output`, in a process group of its own. `cores`: where it may run.

    Not in a session of its own: the scheduler would share the cores among sessions, whatever runs in them.
    """

    def __init__(self, command, directory, cores=None, environment=None):
        self._directory = directory
        out, errors = directory / "output", directory / "errors"
        with scene.on(cores), open(out, "wb") as out, open(errors, "wb") as errors:
            self.started = time.perf_counter()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                process_group=0,
                env={**os.environ, **(environment or {})},
                cwd=directory,
            )
        self.name = command[0].rsplit("/", 1)[-1]

    @property
    def pid(self):
        return self._child.pid

    def until(self, condition, what=None):
        """Asks until it is true, about every quarter of a millisecond. A fault when the process ends, or time is up."""
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass  # it does not listen yet
            if self._child.poll() is not None or time.perf_counter() - self.started > START_SECONDS:
                raise scene.Fault(f"{what or self.name} does not serve: {self.complaint()}")
            time.sleep(0.000_25)

    def complaint(self):
        """The end of what it printed."""
        printed = b"".join(
            (self._directory / name).read_bytes() for name in ("output", "errors") if (self._directory / name).exists()
        )
        return printed[-1500:].decode(errors="replace").strip() or "it printed nothing"

    def stop(self):
        """Asks it to end, then ends it and all of its group."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._child.wait()


def get(port, path, headers=None, ca=None, source=None, timeout=5):
    """One GET over a connection of its own. `ca`: over TLS, verified. `source`: the address to call from."""
    source_address = (source, 0) if source else None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout, source_address=source_address)
    try:
        if ca:
            context = ssl.create_default_context(cafile=ca)
            raw = socket.create_connection(("127.0.0.1", port), timeout)
            connection.sock = context.wrap_socket(raw, server_hostname=scene.UPSTREAM_NAME)
        connection.request("GET", path, headers={"Host": f"localhost:{port}", "Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
