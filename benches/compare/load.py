"""The load: wrk for saturation, the open-loop generator for latency."""

import dataclasses
import json
import subprocess
from pathlib import Path

import install
import scene
import stats

CONNECTIONS = 64
# Seconds at a fixed rate before anything counts.
WARM_UP = 0.5


@dataclasses.dataclass(frozen=True)
class Load:
    """What a closed loop got through: every connection sends its next request when its answer is there."""

    requests: int
    seconds: float
    bytes: int

    @property
    def rate(self):
        return self.requests / self.seconds


def saturate(port, path, seconds, cores):
    """All that the proxy can do, over 64 connections that are kept. Any failed request is a fault."""
    headers = [word for name, value in scene.CALLERS_HEADERS.items() for word in ("-H", f"{name}: {value}")]
    script = str(scene.HERE / "load.lua")
    shape = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--timeout", "10s"]
    counts = run(["wrk", *shape, "--script", script, *headers, f"http://127.0.0.1:{port}{path}"], cores)
    if counts["failed"] or counts["not_2xx"] or not counts["requests"]:
        raise scene.Fault(f"the load went wrong: {counts}")
    return Load(counts["requests"], counts["microseconds"] / 1e6, counts["bytes"])


@dataclasses.dataclass(frozen=True)
class Latency:
    """Microseconds from the time a request was due to the end of its answer; `late`: how late its sending was."""

    requests: int
    p50: float
    p99: float
    late_p50: float
    late_p99: float


def at_rate(port, path, rate, seconds, cores):
    """Requests on a schedule, over 64 connections that are kept. Any failed request is a fault."""
    headers = [f"{name}: {value}" for name, value in scene.CALLERS_HEADERS.items()]
    shape = [str(rate), str(CONNECTIONS), str(WARM_UP), str(seconds)]
    seen = run([str(install.openloop_binary()), f"127.0.0.1:{port}", path, *shape, *headers], cores)
    latency, late = ([nanoseconds / 1e3 for nanoseconds in seen[name]] for name in ("latency", "lateness"))
    return Latency(
        len(latency),
        stats.percentile(latency, 50),
        stats.percentile(latency, 99),
        stats.percentile(late, 50),
        stats.percentile(late, 99),
    )


def run(command, cores):
    """Runs a generator on these cores; the JSON of its last line."""
    with scene.on(cores):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise scene.Fault(f"{Path(command[0]).name}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])
