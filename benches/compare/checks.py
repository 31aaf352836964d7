"""Checks that a proxy does the work before its cost is measured: a proxy that forgets a part of it would look cheap.

Each check starts the proxy with the configuration that is measured, in front of an upstream that writes down what it
sees. A proxy that fails one is not measured, and the run fails.
"""

import http.client
import json
import socketserver
import ssl
import threading

import scene
from peers import Setting
from process import get


class Failed(Exception):
    """A check that a proxy did not pass: what was seen instead."""


class Witness:
    """A TLS upstream that answers everything with `{}` and remembers each request: line, fields, version of TLS."""

    def __init__(self, stage, certificate="upstream"):
        self.requests = []
        self.connections = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(stage.file(f"{certificate}.pem"), stage.file(f"{certificate}-key.pem"))
        witness = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    with context.wrap_socket(self.request, server_side=True) as tls:
                        witness.connections += 1
                        witness.answer(tls)
                except OSError:
                    pass  # who does not trust the certificate ends the handshake

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, tls):
        reader = tls.makefile("rb")
        while line := reader.readline():
            fields = []
            while (field := reader.readline()) not in (b"\r\n", b""):
                name, _, value = field.decode("latin-1").partition(":")
                fields.append((name.strip().lower(), value.strip()))
            self.requests.append((line.decode("latin-1").strip(), fields, tls.version()))
            tls.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                b"Set-Cookie: upstreams=1\r\n\r\n{}"
            )


def check(stage, peer, cores=None):
    """All checks of one proxy. Returns a mapping of check to None, or what was wrong."""
    outcomes = {}
    with Witness(stage) as witness:
        with peer.start(stage, Setting(1, witness.port, stage.file("ca.pem"), cores)) as proxy:
            proxy.until_it_answers()
            for name, made in WITH_THE_UPSTREAM.items():
                outcomes[name] = outcome(made, proxy, witness)
    for name, certificate in WITH_A_WRONG_UPSTREAM.items():
        with Witness(stage, certificate) as witness:
            with peer.start(stage, Setting(1, witness.port, stage.file("ca.pem"), cores)) as proxy:
                proxy.until_it_answers()
                outcomes[name] = outcome(refuses_the_upstream, proxy, witness)
    return outcomes


def outcome(made, proxy, witness):
    try:
        made(proxy, witness)
    except (Failed, scene.Fault, OSError, http.client.HTTPException) as fault:
        return str(fault) or type(fault).__name__


def ask(proxy, witness, headers=None, source=None):
    """One request through the proxy; the answer, and what the upstream saw of it."""
    witness.requests.clear()
    answer = get(proxy.port, scene.SMALL, headers, source=source)
    return answer, list(witness.requests)


def attaches_ours(proxy, witness):
    for headers in ({}, scene.CALLERS_OWN):
        answer, seen = ask(proxy, witness, headers)
        if answer.status != 200 or len(seen) != 1:
            raise Failed(f"status {answer.status}, {len(seen)} requests at the upstream")
        line, fields, _ = seen[0]
        if line != f"GET {scene.SMALL} HTTP/1.1":
            raise Failed(f"another request arrived: {line}")
        credentials = [value for name, value in fields if name == "authorization"]
        if credentials != [scene.BASIC]:
            raise Failed(f"{len(credentials)} Authorization fields arrived, or not ours")
        if [value for name, value in fields if name == "host"] != [f"{scene.UPSTREAM_NAME}:{witness.port}"]:
            raise Failed("the upstream's Host did not arrive")


def drops_the_callers(proxy, witness):
    _, seen = ask(proxy, witness, scene.CALLERS_OWN)
    leaked = [name for _, fields, _ in seen for name, value in fields if "callers-own" in value]
    if leaked or not seen:
        raise Failed(f"these of the caller's arrived: {', '.join(leaked)}" if leaked else "no request arrived")


def drops_cookies_of_the_answer(proxy, witness):
    answer, _ = ask(proxy, witness)
    if answer.headers.get_all("set-cookie"):
        raise Failed("Set-Cookie came through")


def refuses_other_networks(proxy, witness):
    answer, seen = ask(proxy, witness, source=scene.REFUSED_ADDRESS)
    if answer.status != 403 or seen:
        raise Failed(f"status {answer.status} for {scene.REFUSED_ADDRESS}, {len(seen)} requests at the upstream")


def speaks_tls_1_3(proxy, witness):
    _, seen = ask(proxy, witness)
    if [version for _, _, version in seen] != ["TLSv1.3"]:
        raise Failed(f"the upstream saw {[version for _, _, version in seen]}")


def keeps_connections(proxy, witness):
    before = witness.connections
    for _ in range(20):
        ask(proxy, witness)
    if witness.connections - before > 2:
        raise Failed(f"{witness.connections - before} upstream connections for 20 requests")


def writes_records(proxy, witness):
    answer, _ = ask(proxy, witness)
    scene.wait_until(
        lambda: any(is_record(line) for line in lines(proxy.access_log)),
        5,
        f"no record of a {answer.status} in the access log",
    )


def has_the_rest_on(proxy, witness):
    wrong = proxy.peer.also_on(proxy)
    if wrong:
        raise Failed(wrong)


def refuses_the_upstream(proxy, witness):
    answer, seen = ask(proxy, witness, scene.CALLERS_OWN)
    if answer.status not in (502, 503) or seen:
        raise Failed(f"status {answer.status}, {len(seen)} requests at the upstream")


def lines(path):
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def is_record(line):
    """A record of a request: JSON with its status."""
    try:
        return str(json.loads(line)["status"]) == "200"
    except (ValueError, TypeError, KeyError):
        return False


WITH_THE_UPSTREAM = {
    "attaches our credential": attaches_ours,
    "drops the caller's": drops_the_callers,
    "drops cookies of answers": drops_cookies_of_the_answer,
    "refuses other networks": refuses_other_networks,
    "TLS 1.3 upstream": speaks_tls_1_3,
    "keeps upstream connections": keeps_connections,
    "writes access records": writes_records,
    "has the rest switched on": has_the_rest_on,
}
WITH_A_WRONG_UPSTREAM = {
    "refuses another CA": "wrong-ca",
    "refuses another name": "wrong-name",
}
