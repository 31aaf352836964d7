"""The upstream of all proxies: nginx with static answers, fast enough to be nobody's bottleneck for long.

CPU is read per proxy, so the upstream's own cost is in no figure but the rate.
"""

import json
import os

import procfs
import scene
from process import Process, get


class Upstream:
    """TLS 1.3 on one port of 127.0.0.1, three paths. `direct_port` has the same without TLS, for the load alone."""

    def __init__(self, stage):
        bodies(stage)
        directory = stage.fresh("upstream")
        self.port = scene.free_port()
        self.direct_port = scene.free_port()
        configuration = directory / "nginx.conf"
        values = {
            "DIRECTORY": directory,
            "SCENE": stage.directory,
            "WORKERS": len(os.sched_getaffinity(0)),
            "UPSTREAM_PORT": self.port,
            "DIRECT_PORT": self.direct_port,
            "SMALL": scene.SMALL,
            "MEDIUM": scene.MEDIUM,
            "LARGE": scene.LARGE,
            "SMALL_BODY": body(scene.BODY_BYTES[scene.SMALL]).decode(),
        }
        configuration.write_text(scene.render("upstream.conf", values))
        self._ca = stage.file("ca.pem")
        self._process = Process(["nginx", "-c", str(configuration)], directory)

    def __enter__(self):
        try:
            self._process.until(lambda: get(self.port, scene.SMALL, ca=self._ca).status == 200, "the upstream")
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_):
        self._process.stop()

    def pin(self, cores):
        """Puts all its workers on these cores."""
        for pid in procfs.processes(self._process.pid):
            os.sched_setaffinity(pid, cores)


def bodies(stage):
    """JSON as MX's, of exactly these sizes."""
    for name, size in (("small", 1_200), ("medium", 64 * 1024), ("large", 1024 * 1024)):
        stage.file(f"{name}.json").write_bytes(body(size))


def body(size):
    """A list of accounts, filled up with spaces at its end."""
    head, tail, entries, length = '{"accounts":[', "]}", [], 0
    while True:
        n = len(entries)
        entry = json.dumps(
            {
                "guid": f"ACT-{n * 7919 % 2**32:08x}-aaaa-bbbb-cccc-{n:012x}",
                "name": f"Account {n}",
                "type": "SAVINGS",
                "balance": n * 137.25,
                "currency_code": "USD",
                "is_closed": False,
                "updated_at": "2026-09-21T14:13:20Z",
            }
        )
        length += len(entry) + 1
        if len(head) + length + len(tail) > size:
            return (head + ",".join(entries) + tail).ljust(size).encode()
        entries.append(entry)
