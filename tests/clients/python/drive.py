"""Drives every operation of MX's Python SDK, unmodified, against a gateway.

In: a base URL. Out: one JSON line per operation on stdout, then one summary line.
The operations are found by introspection, the arguments are built from the SDK's own type hints, so a
new SDK release needs no change here, except for OPERATIONS when MX adds or drops an operation.

An operation is `ok` only when the SDK returned an answer of the type it declares, with at least one
field of that type filled in. Most fields of MX's models are optional, so without that last demand
`{}`, or an error document sent with status 200, would count as a success.

Exit code: 0 when the operations that failed are exactly those expected to, 1 when not, 2 for wrong usage.
"""

import argparse
import inspect
import json
import pathlib
import re
import signal
import sys
import time
import typing

import mx_platform_python
import pydantic

OPERATIONS = 166
"""How many operations the pinned release has; finding another number means the introspection is broken."""

CALL_SECONDS = 10
"""The whole of one call may take this long, however slowly bytes trickle in."""

WRONG = "wrong-credential-of-the-caller"

ARGUMENTS = json.loads((pathlib.Path(__file__).parent.parent / "arguments.json").read_text())
"""Values by the name of the argument or body field; a name that is not there gets a value by its type."""


def main():
    options = parse_options()
    operations = find_operations(api_client(options))
    if len(operations) != OPERATIONS:
        print(f"found {len(operations)} operations, expected {OPERATIONS}", file=sys.stderr)
        return 1
    wanted = select(operations, options.only)
    expected = {plain(name) for name in select(operations, options.expect_failures) if options.expect_failures}

    started = time.monotonic()
    failed = []
    for name, method in wanted.items():
        result = drive(name, method, options.argument)
        print(json.dumps(result), flush=True)
        if not result["ok"]:
            failed.append(name)
    unexpected = [name for name in failed if plain(name) not in expected]
    missing = [name for name in wanted if plain(name) in expected and name not in failed]
    summary = {
        "client": f"mx-platform-python {mx_platform_python.__version__}",
        "operations": len(wanted),
        "ok": len(wanted) - len(failed),
        "failed": failed,
        "unexpected_failures": unexpected,
        "unexpected_successes": missing,
        "seconds": round(time.monotonic() - started, 3),
    }
    print(json.dumps({"summary": summary}), flush=True)
    return 1 if unexpected or missing else 0


def parse_options():
    def names(text):
        return [name for name in text.split(",") if name]

    def pair(text):
        name, separator, value = text.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError("expected NAME=VALUE")
        return plain(name), value

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--ca", metavar="FILE", help="PEM file with the authority that signed the gateway's certificate")
    parser.add_argument("--credentials", choices=["none", "wrong", "empty"], default="none")
    parser.add_argument("--bearer", metavar="TOKEN", help="an access token, sent on the operations that take one")
    parser.add_argument("--accept-version", metavar="VERSION")
    parser.add_argument("--only", type=names, default=[], metavar="NAMES")
    parser.add_argument("--expect-failures", type=names, default=[], metavar="NAMES")
    parser.add_argument("--argument", type=pair, action="append", default=[], metavar="NAME=VALUE",
                        help="replace one argument of every operation that has it, such as user_guid")
    return parser.parse_args()


def api_client(options):
    credentials = {
        "none": {},
        "wrong": {"username": WRONG, "password": WRONG, "access_token": WRONG},
        "empty": {"username": "", "password": "", "access_token": ""},
    }[options.credentials]
    configuration = mx_platform_python.Configuration(host=options.base_url, ssl_ca_cert=options.ca, **credentials)
    if options.bearer is not None:
        configuration.access_token = options.bearer
    # urllib3 would otherwise repeat a call that failed, and follow redirects: both hide what the gateway did.
    configuration.retries = False
    client = mx_platform_python.ApiClient(configuration)
    if options.accept_version is not None:
        client.set_default_header("Accept-Version", options.accept_version)
    return client


def find_operations(client):
    """All operations by name, in an order in which a stateful MX can answer: deletions last, the user at the very end."""
    operations = {}
    for class_name, api in inspect.getmembers(mx_platform_python, inspect.isclass):
        if class_name.endswith("Api"):
            for name in vars(api):
                if name.endswith("_with_http_info"):
                    operations[name.removesuffix("_with_http_info")] = getattr(api(client), name)

    def order(item):
        name, method = item
        deletes = name.startswith("delete_")
        return deletes, -len(sent_parameters(method)) if deletes else 0

    return dict(sorted(operations.items(), key=order))


def select(operations, names):
    """The named operations, or all; a name that no operation has ends the program."""
    known = {plain(name): name for name in operations}
    unknown = [name for name in names if plain(name) not in known]
    if unknown:
        print(f"no such operation: {', '.join(unknown)}", file=sys.stderr)
        raise SystemExit(2)
    wanted = {plain(name) for name in names}
    return {name: method for name, method in operations.items() if not names or plain(name) in wanted}


def plain(name):
    """`create_user`, `createUser` and `CreateUser` are the same operation."""
    return name.replace("_", "").lower()


def drive(name, method, replaced):
    result = {"operation": name, "ok": False, "status": None, "error": None, "request_id": None}
    values = {**{plain(key): value for key, value in ARGUMENTS.items()}, **dict(replaced)}
    try:
        arguments = {p: value_of(annotation, p, values) for p, annotation in sent_parameters(method).items()}
        with deadline(CALL_SECONDS):
            answer = method(**arguments, _request_timeout=CALL_SECONDS)
        result["status"] = answer.status_code
        result["request_id"] = (answer.headers or {}).get("x-mxgate-request-id")
        result["error"] = fault(declared_answer(name, method), answer)
    except mx_platform_python.ApiException as error:
        result["status"] = error.status
        result["request_id"] = (error.headers or {}).get("x-mxgate-request-id")
        result["error"] = f"{error.reason}: {(error.body or '')[:300]}"
    except Exception as error:  # whatever the SDK throws is this operation's failure, and the others go on
        result["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    result["ok"] = result["error"] is None
    return result


def sent_parameters(method):
    """The required ones, and every body: the SDK calls some bodies optional, of which MX says that they are required."""
    hints = typing.get_type_hints(inspect.unwrap(method))
    hints.pop("return")
    return {name: hint for name, hint in hints.items() if not is_optional(hint) or is_model(typing.get_args(hint)[0])}


def declared_answer(name, method):
    """The type that the plain method (without `_with_http_info`) declares; None for an answer without a body."""
    owner = method.__self__ if hasattr(method, "__self__") else None
    plain_method = getattr(owner, name)
    return typing.get_type_hints(inspect.unwrap(plain_method)).get("return", type(None))


def fault(declared, answer):
    """What is wrong with an answer that the SDK accepted, or None."""
    if declared is type(None):
        return None if answer.status_code == 204 else f"status {answer.status_code} where 204 is declared"
    if declared is bytearray:
        return None if bytes(answer.data or b"").startswith(b"%PDF-") else "not a PDF document"
    if not isinstance(answer.data, declared):
        return f"the SDK returned {type(answer.data).__name__}, declared is {declared.__name__}"
    if all(getattr(answer.data, field) is None for field in declared.__fields__):
        return f"no field of {declared.__name__} is filled in"
    return None


def value_of(annotation, name, values):
    """A valid value for a type hint: the smallest that MX can be expected to accept."""
    arguments = typing.get_args(annotation)
    if is_optional(annotation):
        return value_of(next(a for a in arguments if a is not type(None)), name, values)
    if typing.get_origin(annotation) is list:
        return [value_of(arguments[0], re.sub("s$", "", name), values)]
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.ConstrainedList):
        return [value_of(annotation.item_type, re.sub("s$", "", name), values)]
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        return model(annotation, values)
    if typing.get_origin(annotation) is typing.Union:
        return value_of(arguments[0], name, values)
    if inspect.isclass(annotation) and issubclass(annotation, bool) or annotation is pydantic.StrictBool:
        return False
    if inspect.isclass(annotation) and issubclass(annotation, (int, float)):
        return 1
    return values.get(plain(name), "test")


def model(annotation, values):
    """The required fields. When there are none, all but lists of plain values, which are enumerations that hints do not show."""
    hints = typing.get_type_hints(annotation)
    fields = annotation.__fields__
    chosen = [name for name in fields if fields[name].required] or [
        name for name in fields if not (is_list(fields[name]) and not is_model(fields[name].type_))
    ]
    return annotation(**{name: value_of(hints[name], name, values) for name in chosen})


def is_optional(annotation):
    return type(None) in typing.get_args(annotation)


def is_list(field):
    return field.outer_type_ is not field.type_


def is_model(kind):
    return inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel)


class deadline:
    """Interrupts the body after so many seconds; the SDK's own time-out starts anew with every byte that arrives."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def expire(signum, frame):
            raise TimeoutError(f"no answer within {self.seconds} s")

        signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
