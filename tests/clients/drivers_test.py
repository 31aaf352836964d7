"""A driver that cannot fail proves nothing: each one must say no to every kind of bad answer, and yes to a good one.

Run with the interpreter that has the clients: tests/.work/venv/bin/python tests/clients/drivers_test.py
"""

import http.server
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).parent
PYTHON = [sys.executable, HERE / "python" / "drive.py"]
NODE = ["node", HERE / "node" / "drive.mjs"]
ATRIUM = [sys.executable, HERE / "python" / "atrium_drive.py"]
SSO_PROXY = ["node", HERE / "sso-proxy" / "drive.mjs"]

USER = {"user": {"guid": "USR-1", "id": "test"}}
WIDGET_URL = {"widget_url": {"type": "connect_widget", "url": "https://widgets.test/1"}}


class Mx(http.server.BaseHTTPRequestHandler):
    """Answers as the test asks for: `server.answer` is (status, headers, bytes), or a function that gives that or writes by itself."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        answer = self.server.answer
        while callable(answer):
            answer = answer(self)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *arguments):
        pass


def trickle(handler):
    """A valid answer, one byte at a time: no single wait is long."""
    body = json.dumps(USER).encode() + b" " * 1000
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass  # the driver left, as it should


def as_json(status, value, **headers):
    return status, {"Content-Type": "application/vnd.mx.api.v1+json", **headers}, json.dumps(value).encode()


BAD_ANSWERS = {
    "unauthorised": as_json(401, {"error": {"message": "Invalid MX-API-Key or MX-Client-ID provided."}}),
    "server error": as_json(502, {"code": "upstream"}),
    "empty body": (200, {"Content-Type": "application/json"}, b""),
    "empty object": as_json(200, {}),
    "error document with status 200": as_json(200, {"error": {"message": "no"}}),
    "not JSON": (200, {"Content-Type": "application/json"}, b"<html></html>"),
    "no content": (204, {}, b""),
    "redirect": (302, {"Location": "/elsewhere"}, b""),
    "trickle": trickle,
    "hang up": lambda handler: None,
}

OPERATIONS_OF_ALL = [
    "listInstitutions", "readInstitution", "listUsers", "createUser", "readUser",
    "listMembers", "readMember", "readMemberStatus", "listUserAccounts", "readAccount",
]  # one for each bad answer, in all three clients


class Drivers(unittest.TestCase):
    def setUp(self):
        self.mx = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mx)
        self.mx.asked = []
        threading.Thread(target=self.mx.serve_forever, daemon=True).start()
        self.addCleanup(self.mx.server_close)
        self.addCleanup(self.mx.shutdown)

    def drive(self, driver, *options, scheme="http", call_seconds=30):
        """The exit code, the lines by operation, and the summary. Only an answer that never ends needs few seconds."""
        base = f"{scheme}://127.0.0.1:{self.mx.server_port}"
        command = [*driver, "--base-url", base, "--call-seconds", str(call_seconds), *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        summary = lines.pop()["summary"] if lines else None
        return ended.returncode, {line["operation"]: line for line in lines}, summary

    def test_a_good_answer_is_a_success_and_an_unexpected_one_is_not(self):
        self.mx.answer = as_json(200, USER, **{"x-mxgate-request-id": "request-1"})
        for driver in (PYTHON, NODE, ATRIUM):
            with self.subTest(driver[1].name):
                code, lines, summary = self.drive(driver, "--only", "readUser")
                self.assertEqual(code, 0)
                self.assertEqual([(line["ok"], line["status"], line["request_id"]) for line in lines.values()], [(True, 200, "request-1")])
                self.assertEqual(summary["ok"], 1)
                code, _, summary = self.drive(driver, "--only", "readUser", "--expect-failures", "readUser")
                self.assertEqual((code, len(summary["unexpected_successes"])), (1, 1))

    def test_every_bad_answer_is_a_failure(self):
        for driver in (PYTHON, NODE, ATRIUM):
            with self.subTest(driver[1].name):
                # Each operation meets another kind, also when its client asks again.
                kinds, met = iter(BAD_ANSWERS), {}

                def answer(handler):
                    if handler.path == "/elsewhere":  # urllib3 inside Atrium follows
                        return BAD_ANSWERS["server error"]
                    call = (handler.command, handler.path)
                    if call not in met:
                        met[call] = next(kinds)
                    return BAD_ANSWERS[met[call]]

                self.mx.answer = answer
                code, lines, _ = self.drive(driver, "--only", ",".join(OPERATIONS_OF_ALL), call_seconds=5)
                self.assertEqual(code, 1)
                self.assertEqual(set(met.values()), set(BAD_ANSWERS))
                accepted = {kind: line for kind, line in zip(met.values(), lines.values(), strict=True) if line["ok"]}
                self.assertEqual(accepted, {})

    def test_an_expected_failure_is_fine_and_another_one_is_not(self):
        self.mx.answer = BAD_ANSWERS["unauthorised"]
        for driver in (PYTHON, NODE, ATRIUM):
            with self.subTest(driver[1].name):
                self.assertEqual(self.drive(driver, "--only", "readUser", "--expect-failures", "read_user")[0], 0)
                self.assertEqual(self.drive(driver, "--only", "readUser,listUsers", "--expect-failures", "readUser")[0], 1)

    def test_a_body_where_none_is_declared_and_a_text_instead_of_the_document_are_failures(self):
        self.mx.answer = as_json(200, USER)
        for driver in (PYTHON, NODE):
            with self.subTest(driver[1].name):
                code, lines, _ = self.drive(driver, "--only", "deleteUser,downloadStatementPDF")
                self.assertEqual((code, [line["ok"] for line in lines.values()]), (1, [False, False]))
                self.mx.answer, before = (204, {}, b""), self.mx.answer
                self.assertEqual(self.drive(driver, "--only", "deleteUser")[0], 0)
                self.mx.answer = (200, {"Content-Type": "application/vnd.mx.api.v1+pdf"}, b"%PDF-1.7\n")
                self.assertEqual(self.drive(driver, "--only", "downloadStatementPDF")[0], 0)
                self.mx.answer = before

    def test_an_operation_that_does_not_exist_is_wrong_usage(self):
        self.mx.answer = as_json(200, USER)
        for driver in (PYTHON, NODE, ATRIUM, SSO_PROXY):
            with self.subTest(driver[1].name):
                self.assertEqual(self.drive(driver, "--only", "readUsr")[0], 2)

    def test_credentials_and_versions_are_sent_as_asked(self):
        self.mx.answer = as_json(200, USER)
        wrong = "Basic d3JvbmctY3JlZGVudGlhbC1vZi10aGUtY2FsbGVyOndyb25nLWNyZWRlbnRpYWwtb2YtdGhlLWNhbGxlcg=="
        for driver, empty in ((PYTHON, "Basic Og=="), (NODE, None)):
            for credentials, sent in (("none", None), ("wrong", wrong), ("empty", empty)):
                with self.subTest(driver[1].name, credentials=credentials):
                    self.drive(driver, "--only", "readUser", "--credentials", credentials)
                    headers = self.mx.asked[-1][2]
                    self.assertEqual((headers.get("Authorization"), headers.get("Accept-Version")), (sent, None))
            self.drive(driver, "--only", "requestAccountNumber", "--bearer", "token-1", "--accept-version", "v20250224")
            headers = self.mx.asked[-1][2]
            self.assertEqual((headers["Authorization"], headers["Accept-Version"]), ("Bearer token-1", "v20250224"))

    def test_an_argument_can_be_replaced_and_is_percent_encoded(self):
        self.mx.answer = as_json(200, USER)
        for driver in (PYTHON, NODE):
            with self.subTest(driver[1].name):
                self.drive(driver, "--only", "readUser", "--argument", "user_guid=a/b ü?x")
                self.assertEqual(self.mx.asked[-1][1], "/users/a%2Fb%20%C3%BC%3Fx")

    def test_a_certificate_is_verified_against_the_authority_that_is_given(self):
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = f"{directory}/key.pem", f"{directory}/certificate.pem"
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                 "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                check=True, capture_output=True,
            )  # fmt: skip
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.mx.socket = context.wrap_socket(self.mx.socket, server_side=True)
            for driver, operation, answer in (
                (PYTHON, "readUser", USER),
                (NODE, "readUser", USER),
                (ATRIUM, "readUser", USER),
                (SSO_PROXY, "getUserWidgetUrls", WIDGET_URL),
            ):
                with self.subTest(driver[1].parent.name):
                    self.mx.answer = as_json(200, answer)
                    self.assertEqual(self.drive(driver, "--only", operation, "--ca", certificate, scheme="https")[0], 0)
                    self.assertEqual(self.drive(driver, "--only", operation, scheme="https")[0], 1)

    def test_the_widget_url_proxy_is_driven_and_its_death_is_a_failure(self):
        self.mx.answer = as_json(200, WIDGET_URL)
        code, lines, summary = self.drive(SSO_PROXY)
        self.assertEqual((code, len(lines), summary["failed"]), (0, 6, []))
        self.assertEqual(len(self.mx.asked), 4)
        for name, call_seconds in (("unauthorised", 30), ("empty object", 30), ("trickle", 5)):
            with self.subTest(name):
                self.mx.answer = BAD_ANSWERS[name]
                names = "ping,getUserWidgetUrls,postUserWidgetUrls"
                code, lines, _ = self.drive(SSO_PROXY, "--only", names, call_seconds=call_seconds)
                self.assertEqual((code, [line["ok"] for line in lines.values()]), (1, [True, False, False]))


if __name__ == "__main__":
    unittest.main()
