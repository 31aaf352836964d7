"""Drives every operation of MX's Python SDK, unmodified, against a gateway.

The operations are found by introspection and the arguments are built from the SDK's own type hints, so a new
release needs no change here, except for OPERATIONS when MX adds or drops an operation.

An operation is `ok` only when the SDK returned an answer of the type it declares, with at least one field of
that type filled in. Most fields of MX's models are optional, so without that last demand `{}`, or an error
document sent with status 200, would count as a success.

Exit code: 0 when the operations that failed are exactly those expected to, 1 when not, 2 for wrong usage.
"""

import argparse
import inspect
import re
import sys
import typing

import mx_platform_python
import pydantic

from driver import ARGUMENTS, WRONG, parser, plain, run

OPERATIONS = 166
"""How many operations the pinned release has; finding another number means the introspection is broken."""


def main():
    options = parse_options()
    client = api_client(options)
    operations = find_operations(client)
    if len(operations) != OPERATIONS:
        print(f"found {len(operations)} operations, expected {OPERATIONS}", file=sys.stderr)
        return 1
    values = {**{plain(name): value for name, value in ARGUMENTS.items()}, **dict(options.argument)}

    def drive(name, method, result):
        arguments = {parameter: value_of(hint, parameter, values) for parameter, hint in sent_parameters(method).items()}
        client.last_response = None
        try:
            answer = method(**arguments, _request_timeout=options.call_seconds)
        finally:  # also when the SDK refuses what was answered
            if client.last_response is not None:
                result["status"] = client.last_response.status
                result["request_id"] = client.last_response.getheader("x-mxgate-request-id")
        result["error"] = fault(declared_answer(name, method), answer)

    return run(f"mx-platform-python {mx_platform_python.__version__}", operations, drive, options)


def parse_options():
    def pair(text):
        name, separator, value = text.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError("expected NAME=VALUE")
        return plain(name), value

    options = parser(__doc__)
    options.add_argument("--bearer", metavar="TOKEN", help="an access token, sent on the operations that take one")
    options.add_argument("--password", help="of Basic, with a user name that means nothing")
    options.add_argument("--certificate", metavar="FILE", help="PEM file with the client certificate")
    options.add_argument("--key", metavar="FILE", help="PEM file with its key")
    options.add_argument("--accept-version", metavar="VERSION")
    options.add_argument("--argument", type=pair, action="append", default=[], metavar="NAME=VALUE",
                         help="replaces one argument, such as user_guid, of every operation that has it")
    return options.parse_args()


def api_client(options):
    credentials = {
        "none": {},
        "wrong": {"username": WRONG, "password": WRONG, "access_token": WRONG},
        "empty": {"username": "", "password": "", "access_token": ""},
    }[options.credentials]
    configuration = mx_platform_python.Configuration(host=options.base_url, ssl_ca_cert=options.ca, **credentials)
    if options.password is not None:
        configuration.username, configuration.password = "anybody", options.password
    if options.certificate is not None:
        configuration.cert_file, configuration.key_file = options.certificate, options.key
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
        return 100 - len(sent_parameters(method)) if name.startswith("delete_") else 0

    return dict(sorted(operations.items(), key=order))


def sent_parameters(method):
    """The required ones, and every body: the SDK calls some bodies optional, of which MX says that they are required."""
    hints = typing.get_type_hints(inspect.unwrap(method))
    hints.pop("return")
    return {name: hint for name, hint in hints.items() if not is_optional(hint) or is_model(typing.get_args(hint)[0])}


def declared_answer(name, method):
    """The type that the plain method (without `_with_http_info`) declares; NoneType for an answer without a body."""
    return typing.get_type_hints(inspect.unwrap(getattr(method.__self__, name)))["return"]


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


def value_of(hint, name, values):
    """A valid value for a type hint: the smallest that MX can be expected to accept."""
    if is_optional(hint):
        return value_of(typing.get_args(hint)[0], name, values)
    if is_kind(hint, pydantic.ConstrainedList):
        return [value_of(hint.item_type, re.sub("s$", "", name), values)]
    if is_model(hint):
        return model(hint, values)
    if hint is pydantic.StrictBool:
        return False
    if is_kind(hint, (int, float)) or typing.get_origin(hint) is typing.Union:  # StrictInt or StrictFloat
        return 1
    return values.get(plain(name), "test")


def model(kind, values):
    """The required fields. When there are none, all but lists of plain values: those are enumerations, which hints do not show."""
    fields = kind.__fields__.values()
    chosen = [field for field in fields if field.required] or [
        field for field in fields if is_model(field.type_) or field.outer_type_ is field.type_
    ]
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: value_of(hints[field.name], field.name, values) for field in chosen})


def is_optional(hint):
    return type(None) in typing.get_args(hint)


def is_model(hint):
    return is_kind(hint, pydantic.BaseModel)


def is_kind(hint, kinds):
    return inspect.isclass(hint) and issubclass(hint, kinds)


if __name__ == "__main__":
    sys.exit(main())
