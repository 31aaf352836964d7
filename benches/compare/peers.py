"""The proxies: how each is found, configured alike and started.

Every configuration does the same: plain HTTP in, networks that may call, the caller's credentials dropped, one of ours
attached, TLS 1.3 to the upstream verified against one CA and one name, connections kept, a line per request in a file.
The configurations are in `configs/`.
"""

import dataclasses
import re
import shutil
import subprocess
import time
from pathlib import Path

import scene
from process import Process, get


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a proxy is started. `ca`: the file that the upstream's certificate is verified with."""

    workers: int
    upstream_port: int
    ca: Path
    cores: frozenset | None = None


class Peer:
    """A proxy. A subclass says what is its own."""

    name = ""
    template = ""

    def program(self):
        """The binary's path, or None where it is not installed."""
        found = shutil.which(self.name)
        return Path(found).resolve() if found else None

    def version(self):
        """What it calls itself."""
        raise NotImplementedError

    def values(self):
        """What replaces the names in its template, beside those that all have."""
        return {}

    def configuration(self, values):
        return scene.render(self.template, values)

    def prepare(self, directory):
        """Further files that it needs."""

    def also_on(self, proxy):
        """Looks, after some requests, whether what it alone has is switched on: None, or what is not."""

    def command(self, configuration, workers):
        raise NotImplementedError

    def environment(self, directory, workers):
        return {}

    def access_log(self, directory):
        return directory / "access.log"

    def said(self, *arguments):
        """The first version number in what it prints."""
        done = subprocess.run([self.program(), *arguments], capture_output=True, text=True)
        return re.search(r"\d+\.\d+\.\d+[\w+~-]*", done.stdout + done.stderr).group()

    def start(self, stage, setting):
        return Running(self, stage.fresh(self.name), setting)


class Running:
    """A proxy that was started. `cold_start`: seconds from its process's start to the first forwarded answer."""

    def __init__(self, peer, directory, setting):
        self.peer = peer
        self.directory = directory
        self.port = scene.free_port()
        configuration = directory / peer.template
        configuration.write_text(
            peer.configuration(
                {
                    "PORT": self.port,
                    "DIRECTORY": directory,
                    "WORKERS": setting.workers,
                    "CA": setting.ca,
                    "UPSTREAM_NAME": scene.UPSTREAM_NAME,
                    "UPSTREAM_PORT": setting.upstream_port,
                    "BASIC": scene.BASIC,
                    **peer.values(),
                }
            )
        )
        peer.prepare(directory)
        command = peer.command(configuration, setting.workers)
        self.process = Process(command, directory, setting.cores, peer.environment(directory, setting.workers))
        self.cold_start = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)  # the access log of one measurement is up to 100 MB

    @property
    def pid(self):
        return self.process.pid

    @property
    def access_log(self):
        return self.peer.access_log(self.directory)

    def until_it_forwards(self):
        """With 200, so from the upstream."""
        self.process.until(lambda: get(self.port, scene.SMALL).status == 200)
        self.cold_start = time.perf_counter() - self.process.started
        return self

    def until_it_answers(self):
        """With any status: it listens, whatever its upstream does."""
        self.process.until(lambda: get(self.port, scene.SMALL).status > 0)
        return self


class Placed(Peer):
    """A program that is at no fixed place: built here, or installed by `install`."""

    def __init__(self, binary):
        self._binary = binary

    def program(self):
        return self._binary


class Mxgate(Placed):
    name = "mxgate"
    template = "mxgate.toml"

    def version(self):
        return self.said("--version")

    def values(self):
        return {
            "NETWORKS": ", ".join(f'"{network}"' for network in scene.ALLOWED_NETWORKS),
            "CLIENT_ID": scene.CLIENT_ID,
            "HEALTH_PORT": scene.free_port(),
        }

    def also_on(self, proxy):
        health = re.search(r'\[health\]\naddress = "127.0.0.1:(\d+)"', (proxy.directory / self.template).read_text())
        if not health:
            return "no metrics"
        metrics = get(int(health[1]), "/metrics").body.decode()
        if not re.search(r'mxgate_requests_total\{operation="listUserAccounts",status="2xx"\} [1-9]', metrics):
            return "metrics do not count the request under its operation"
        return None

    def prepare(self, directory):
        vault = ["vault", "--vault", directory / "vault.age", "--identity", f"file:{directory}/identity"]
        sealed = ["set", "production/api_key", "--host", scene.UPSTREAM_NAME]
        for arguments, given in ((["init"], None), (sealed, scene.API_KEY)):
            done = subprocess.run([self._binary, *vault, *arguments], input=given, capture_output=True, text=True)
            if done.returncode:
                raise scene.Fault(f"mxgate vault {arguments[0]}: {done.stderr}{done.stdout}")

    def command(self, configuration, workers):
        return [str(self._binary), "run", "--config", str(configuration)]


class Nginx(Peer):
    """Master and workers."""

    name = "nginx"
    template = "nginx.conf"

    def version(self):
        return self.said("-v")

    def values(self):
        return {"ALLOW": "\n    ".join(f"allow {network};" for network in scene.ALLOWED_NETWORKS)}

    def command(self, configuration, workers):
        return [str(self.program()), "-c", str(configuration)]


class Haproxy(Peer):
    """One process with a thread a worker. It writes records to standard output, which is a file here, one by one."""

    name = "haproxy"
    template = "haproxy.cfg"

    def version(self):
        return self.said("-v")

    def values(self):
        return {"NETWORKS": " ".join(scene.ALLOWED_NETWORKS)}

    def command(self, configuration, workers):
        return [str(self.program()), "-db", "-f", str(configuration)]

    def access_log(self, directory):
        return directory / "output"


class Envoy(Placed):
    """One process with a thread a worker."""

    name = "envoy"
    template = "envoy.yaml"

    def version(self):
        return self.said("--version")

    def values(self):
        prefixes = []
        for network in scene.ALLOWED_NETWORKS:
            address, length = network.split("/")
            prefixes.append(f"- direct_remote_ip: {{address_prefix: {address}, prefix_len: {length}}}")
        return {"PRINCIPALS": ("\n" + " " * 20).join(prefixes)}

    def command(self, configuration, workers):
        return [
            str(self._binary),
            "--config-path",
            str(configuration),
            "--concurrency",
            str(workers),
            "--disable-hot-restart",
            "--log-level",
            "warn",
            "--file-flush-interval-msec",
            "1000",
        ]


class Caddy(Placed):
    """One process; its runtime uses as many cores at once as it has workers. It writes records one by one."""

    name = "caddy"
    template = "Caddyfile"

    def version(self):
        return self.said("version")

    def values(self):
        return {"NETWORKS": " ".join(scene.ALLOWED_NETWORKS)}

    def command(self, configuration, workers):
        return [str(self._binary), "run", "--config", str(configuration), "--adapter", "caddyfile"]

    def environment(self, directory, workers):
        return {"GOMAXPROCS": str(workers), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
