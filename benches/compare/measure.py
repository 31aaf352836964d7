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

# Requests a second, far below what any proxy can do.
RATES = (1_000, 5_000)
IDLE_CONNECTIONS = 2_000
# How long they have been idle when memory is read: longer than any proxy waits before it gives buffers back.
IDLE_SECONDS = 4
STARTS = 3
# The name of the load on the upstream itself, among the proxies.
DIRECT = "direct"


@dataclasses.dataclass(frozen=True)
class Stage:
    """`turn(bench, peer)` measures one proxy and returns its figures by name.

    `beside_direct`: the load is also put on the upstream itself, as the turn of `None`, and compared with each p50.
    """

    name: str
    turn: object
    beside_direct: bool = False


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


def latency(rate):
    """Time to answer at a fixed rate, from the time each request was due; and CPU a request at that rate."""

    def turn(bench, peer):
        cores = scene.cores(2)
        if peer is None:
            bench.upstream.pin(cores.rest)
            port = bench.upstream.direct_port
            return latency_figures(load.at_rate(port, scene.SMALL, rate, bench.seconds, cores.rest))
        with bench.start(peer, 2, cores) as proxy:
            proxy.until_it_forwards()
            before = procfs.cpu(proxy.pid)
            seen = load.at_rate(proxy.port, scene.SMALL, rate, bench.seconds, cores.rest)
            used = procfs.cpu(proxy.pid).since(before)
        sent = rate * (bench.seconds + load.WARM_UP)
        return {**latency_figures(seen), "cpu_us": used.total / sent * 1e6}

    return Stage(f"{rate:,}/s", turn, beside_direct=True)


def latency_figures(seen):
    return {"p50_us": seen.p50, "p99_us": seen.p99, "late_p50_us": seen.late_p50, "late_p99_us": seen.late_p99}


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
            closed = sum(not still_open(connection) for connection in connections)
            for connection in connections:
                connection.close()
            if closed:
                raise scene.Fault(f"{peer.name} closed {closed} idle connections: their memory was not measured")
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
    connection.setblocking(False)
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
    *(latency(rate) for rate in RATES),
    memory(),
    cold_start(),
]
QUICK = ["one core", "two cores"]
SMOKE = ["one core", "1,000/s", "cold start"]


def named(names):
    """The stages of these names, in the usual order."""
    unknown = set(names) - {stage.name for stage in FULL}
    if unknown:
        raise scene.Fault(f"no stage is called {sorted(unknown)}; there are {[stage.name for stage in FULL]}")
    return [stage for stage in FULL if stage.name in names]


def rounds(bench, peers, stages, count, say):
    """Measures everything `count` times. A turn that goes wrong leaves a gap, and is said.

    Returns a list of `{"round", "stage", "proxy", "figures"}`, and how many turns went wrong.
    """
    results, wrong = [], 0
    for number in range(count):
        for stage in stages:
            turns = {}
            for peer in rotated([None] * stage.beside_direct + peers, number):
                name = peer.name if peer else DIRECT
                try:
                    turns[name] = stage.turn(bench, peer)
                    say(number, stage.name, name, figures_as_text(turns[name]))
                except (scene.Fault, OSError) as fault:
                    wrong += 1
                    say(number, stage.name, name, f"FAILED: {fault}")
            if DIRECT in turns:
                add_what_each_adds(turns)
            for name, figures in turns.items():
                results.append({"round": number, "stage": stage.name, "proxy": name, "figures": figures})
    return results, wrong


def figures_as_text(figures):
    return "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())


def add_what_each_adds(turns):
    """`added_p50_us`: a proxy's p50 less that of the upstream itself in the same round."""
    for name, figures in turns.items():
        if name != DIRECT:
            figures["added_p50_us"] = figures["p50_us"] - turns[DIRECT]["p50_us"]


def rotated(items, by):
    """The same items, starting with another one."""
    by %= len(items)
    return items[by:] + items[:by]
