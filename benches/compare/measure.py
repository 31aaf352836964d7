"""What is measured, and in which order.

A round goes through all stages; in a stage every proxy gets its turn, in an order that shifts by one each round. So
what a ratio compares was measured seconds apart, and no proxy always comes first. A turn starts the proxy anew: nothing
is left over from another load, and chance in one process's layout is not repeated seven times.
"""

import dataclasses
import socket
import time

import load
import procfs
import scene
import stats
from peers import Setting

IDLE_CONNECTIONS = 2_000
# How long they have been idle when memory is read: longer than any proxy waits before it gives buffers back.
IDLE_SECONDS = 4
STARTS = 3


@dataclasses.dataclass(frozen=True)
class Stage:
    """`turn(bench, peer)` measures one proxy and returns its figures by name."""

    name: str
    turn: object


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a turn needs. `seconds`: how long one load lasts, after a second of warming up."""

    stage: scene.Scene
    upstream: object
    seconds: int

    def start(self, peer, workers, cores):
        self.upstream.pin(cores.rest)
        setting = Setting(workers, self.upstream.port, self.stage.file("ca.pem"), cores.proxy)
        return peer.start(self.stage, setting)


def saturation(name, workers, path):
    """CPU a request and requests a second, with 64 connections that never wait."""

    def turn(bench, peer):
        cores = scene.cores(workers)
        with bench.start(peer, workers, cores) as proxy:
            proxy.until_it_forwards()
            load.saturate(proxy.port, path, 1, cores.rest)
            before, processes = procfs.cpu(proxy.pid), procfs.processes(proxy.pid)
            done = load.saturate(proxy.port, path, bench.seconds, cores.rest)
            used = procfs.cpu(proxy.pid).since(before)
            if procfs.processes(proxy.pid) != processes:
                raise scene.Fault(f"{peer.name} started or lost a process under load: its CPU time is not known")
        return {
            "cpu_us": used.total / done.requests * 1e6,
            "user_us": used.user / done.requests * 1e6,
            "rate": done.rate,
            "s_per_gb": used.total / (done.requests * scene.BODY_BYTES[path]) * 1e9,
            "busy_cores": used.total / done.seconds,
        }

    return Stage(name, turn)


def memory():
    """RSS and PSS after the first answer, and with 2,000 connections that have each had one and are idle since."""

    def turn(bench, peer):
        cores = scene.cores(2)
        with bench.start(peer, 2, cores) as proxy:
            proxy.until_it_forwards()
            time.sleep(1)
            idle = procfs.memory(proxy.pid)
            connections = [asked_once(proxy.port) for _ in range(IDLE_CONNECTIONS)]
            time.sleep(IDLE_SECONDS)
            held = procfs.memory(proxy.pid)
            for connection in connections:
                connection.setblocking(False)
                if not still_open(connection):
                    raise scene.Fault(f"{peer.name} closed idle connections: their memory was not measured")
                connection.close()
        return {"idle_rss": idle.rss, "idle_pss": idle.pss, "held_rss": held.rss, "held_pss": held.pss}

    return Stage("memory", turn)


def cold_start():
    """From the process's start to its first forwarded answer, milliseconds: the median of a few starts."""

    def turn(bench, peer):
        took = []
        for _ in range(STARTS):
            with bench.start(peer, 2, scene.cores(2)) as proxy:
                took.append(proxy.until_it_forwards().cold_start * 1e3)
        return {"cold_start_ms": stats.median(took)}

    return Stage("cold start", turn)


def asked_once(port):
    """A connection that has had one answer and is kept."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    head = "".join(f"{name}: {value}\r\n" for name, value in scene.CALLERS_HEADERS.items())
    connection.sendall(f"GET {scene.SMALL} HTTP/1.1\r\nHost: localhost:{port}\r\n{head}\r\n".encode())
    answer = b""
    while not (b"\r\n\r\n" in answer and len(answer) >= answer.index(b"\r\n\r\n") + 4 + scene.BODY_BYTES[scene.SMALL]):
        more = connection.recv(65_536)
        if not more:
            raise scene.Fault("a connection was closed instead of answered")
        answer += more
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise scene.Fault(f"not 200: {answer[:80]!r}")
    return connection


def still_open(connection):
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


FULL = [
    saturation("one core", 1, scene.SMALL),
    saturation("two cores", 2, scene.SMALL),
    saturation("64 KB", 1, scene.MEDIUM),
    saturation("1 MB", 1, scene.LARGE),
    memory(),
    cold_start(),
]
QUICK = FULL[:2]


def rounds(bench, peers, stages, count, say):
    """Measures everything `count` times. Returns a list of `{"round", "stage", "proxy", "figures"}`."""
    results = []
    for number in range(count):
        for stage in stages:
            for peer in rotated(peers, number):
                figures = stage.turn(bench, peer)
                results.append({"round": number, "stage": stage.name, "proxy": peer.name, "figures": figures})
                say(number, stage.name, peer.name, figures)
    return results


def rotated(items, by):
    """The same items, starting with another one."""
    by %= len(items)
    return items[by:] + items[:by]
