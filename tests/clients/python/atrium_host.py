"""A stand-in for MX's Atrium host, as far as atrium_drive.py goes: it takes one key in Atrium's two headers, and nothing else.

Prints its port when it listens, then a line `METHOD PATH STATUS` for each request. Ends when its standard input does.
"""

import argparse
import http.server
import json
import re
import ssl
import sys
import threading

MEDIA_TYPE = "application/vnd.mx.atrium.v1+json"
OTHER_CREDENTIALS = ["Authorization", "Proxy-Authorization", "MD-API-KEY", "MD-SESSION-TOKEN", "Cookie"]
GUID = "[^/?]+"
ANSWERS = {
    # method and path, by the whole of it: status and body
    "GET /institutions": (200, {"institutions": [{"code": "mxbank"}]}),
    f"GET /institutions/{GUID}": (200, {"institution": {"code": "mxbank"}}),
    "GET /users": (200, {"users": [{"guid": "USR-1"}]}),
    "POST /users": (200, {"user": {"guid": "USR-1"}}),
    f"GET /users/{GUID}": (200, {"user": {"guid": "USR-1"}}),
    f"DELETE /users/{GUID}": (204, None),
    f"GET /users/{GUID}/members": (200, {"members": [{"guid": "MBR-1"}]}),
    f"POST /users/{GUID}/members": (202, {"member": {"guid": "MBR-1"}}),
    f"GET /users/{GUID}/members/{GUID}": (200, {"member": {"guid": "MBR-1"}}),
    f"DELETE /users/{GUID}/members/{GUID}": (204, None),
    f"GET /users/{GUID}/members/{GUID}/status": (200, {"member": {"guid": "MBR-1", "connection_status": "CONNECTED"}}),
    f"POST /users/{GUID}/members/{GUID}/aggregate": (202, {"member": {"guid": "MBR-1"}}),
    f"GET /users/{GUID}/accounts": (200, {"accounts": [{"guid": "ACT-1"}]}),
    f"GET /users/{GUID}/accounts/{GUID}": (200, {"account": {"guid": "ACT-1"}}),
    f"GET /users/{GUID}/transactions": (200, {"transactions": [{"guid": "TRN-1"}]}),
    f"GET /users/{GUID}/transactions/{GUID}": (200, {"transaction": {"guid": "TRN-1"}}),
}


class Atrium(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self.answer()
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        print(self.command, self.path, status, flush=True)

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self):
        credential = [self.headers.get_all(name) for name in ("MX-API-Key", "MX-Client-ID")]
        if credential != self.server.credential or any(name in self.headers for name in OTHER_CREDENTIALS):
            return 401, {"error": {"message": "Invalid MX-API-Key or MX-Client-ID provided."}}
        if self.headers.get_all("Accept") != [MEDIA_TYPE]:
            return 406, {"error": {"message": "Not Acceptable"}}
        call = f"{self.command} {self.path.partition('?')[0]}"
        found = [answer for pattern, answer in ANSWERS.items() if re.fullmatch(pattern, call)]
        return found[0] if found else (404, {"error": {"message": "Not Found"}})

    def log_message(self, *arguments):
        pass


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--certificate", required=True)
    options.add_argument("--key", required=True)
    options.add_argument("--client-id", required=True)
    options.add_argument("--api-key-file", required=True)
    options = options.parse_args()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Atrium)
    server.daemon_threads = True
    with open(options.api_key_file, encoding="utf-8") as file:
        server.credential = [[file.read().strip()], [options.client_id]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


main()
