"""What the Python drivers share: the options, a deadline for a call, and the report.

A driver's report is one JSON line per operation, { operation, ok, status, error, request_id }, and then one line
{ summary }. Its exit code is 0 when the operations that failed are exactly those that were expected to.
"""

import argparse
import json
import pathlib
import signal
import sys
import time

WRONG = "wrong-credential-of-the-caller"

ARGUMENTS = json.loads((pathlib.Path(__file__).parent.parent / "arguments.json").read_text())
"""Values by the name of the argument or body field; a name that is not there gets a value by its type."""


def parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--ca", metavar="FILE", help="PEM file with the authority that signed the gateway's certificate")
    parser.add_argument("--credentials", choices=["none", "wrong", "empty"], default="none")
    parser.add_argument("--call-seconds", type=float, default=10, help="how long one call may take, however slowly bytes trickle in")
    parser.add_argument("--only", type=names, default=[], metavar="NAMES")
    parser.add_argument("--expect-failures", type=names, default=[], metavar="NAMES")
    return parser


def names(text):
    return [name for name in text.split(",") if name]


def plain(name):
    """`create_user`, `createUser` and `CreateUser` are the same operation."""
    return name.replace("_", "").lower()


def run(client, operations, drive, options):
    """Drives the operations, a dict by name, that the options ask for; `drive(name, operation, result)` fills in the result. Returns the exit code."""
    expected = select(operations, options.expect_failures)
    wanted = select(operations, options.only) if options.only else operations
    started = time.monotonic()
    failed = []
    for name, operation in wanted.items():
        result = {"operation": name, "ok": False, "status": None, "error": None, "request_id": None}
        try:
            with Deadline(options.call_seconds):
                drive(name, operation, result)
        except Exception as error:  # whatever a client throws is this operation's failure, and the others go on
            describe(error, result)
        result["ok"] = result["error"] is None
        print(json.dumps(result), flush=True)
        if not result["ok"]:
            failed.append(name)
    unexpected_failures = [name for name in failed if name not in expected]
    unexpected_successes = [name for name in wanted if name in expected and name not in failed]
    summary = {
        "client": client,
        "operations": len(wanted),
        "ok": len(wanted) - len(failed),
        "failed": failed,
        "unexpected_failures": unexpected_failures,
        "unexpected_successes": unexpected_successes,
        "seconds": round(time.monotonic() - started, 3),
    }
    print(json.dumps({"summary": summary}), flush=True)
    return 1 if unexpected_failures or unexpected_successes else 0


def select(operations, wanted):
    """The named operations; a name that no operation has ends the program."""
    known = {plain(name): name for name in operations}
    unknown = [name for name in wanted if plain(name) not in known]
    if unknown:
        print(f"no such operation: {', '.join(unknown)}", file=sys.stderr)
        raise SystemExit(2)
    chosen = {plain(name) for name in wanted}
    return {name: operation for name, operation in operations.items() if plain(name) in chosen}


def describe(error, result):
    """Both SDKs throw an ApiException with the answer's status, headers and body; anything else is named by its type."""
    if getattr(error, "status", None) is not None:
        body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
        text = f"{error.reason}: {body or ''}"
        result["status"] = error.status
        result["request_id"] = (error.headers or {}).get("x-mxgate-request-id")
    else:
        text = f"{type(error).__name__}: {error}"
    result["error"] = " ".join(text.split())[:300]


class Late(Exception):
    """Not a TimeoutError: urllib3 would take that for its own, and try again."""


class Deadline:
    """Interrupts the body after so many seconds; the SDKs' own time-out starts anew with every byte that arrives."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def expire(signum, frame):
            raise Late(f"no answer within {self.seconds} s")

        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_REAL, 0)
