"""Drives MX's Atrium client, unmodified, against a gateway: a user's life, with a member, its accounts and transactions.

Atrium is an MX host of its own, with other paths and with `MX-API-Key` and `MX-Client-ID` instead of Basic. The
client is from before type hints and accepts any JSON, so each call below says which value must be in its answer.
`--list-paths` prints what the whole client can send, and sends nothing.

Exit code: 0 when the operations that failed are exactly those expected to, 1 when not, 2 for wrong usage.
"""

import argparse
import importlib.metadata
import inspect
import sys

import atrium

from driver import ARGUMENTS, WRONG, parser, run

USER, MEMBER = ARGUMENTS["user_guid"], ARGUMENTS["member_guid"]
ACCOUNT, TRANSACTION = ARGUMENTS["account_guid"], ARGUMENTS["transaction_guid"]

CALLS = {
    # operation: (API, method, arguments, the value that proves the answer; None where no body is declared)
    "list_institutions": ("institutions", "list_institutions", [], lambda answer: answer.institutions[0].code),
    "read_institution": ("institutions", "read_institution", ["mxbank"], lambda answer: answer.institution.code),
    "list_users": ("users", "list_users", [], lambda answer: answer.users[0].guid),
    "create_user": ("users", "create_user", [{"user": {"identifier": "test"}}], lambda answer: answer.user.guid),
    "read_user": ("users", "read_user", [USER], lambda answer: answer.user.guid),
    "list_members": ("members", "list_members", [USER], lambda answer: answer.members[0].guid),
    "create_member": (
        "members",
        "create_member",
        [USER, {"member": {"institution_code": "mxbank", "credentials": [{"guid": "CRD-1", "value": "test"}]}}],
        lambda answer: answer.member.guid,
    ),
    "read_member": ("members", "read_member", [MEMBER, USER], lambda answer: answer.member.guid),
    "read_member_status": ("members", "read_member_status", [MEMBER, USER], lambda answer: answer.member.connection_status),
    "aggregate_member": ("members", "aggregate_member", [MEMBER, USER], lambda answer: answer.member.guid),
    "list_user_accounts": ("accounts", "list_user_accounts", [USER], lambda answer: answer.accounts[0].guid),
    "read_account": ("accounts", "read_account", [ACCOUNT, USER], lambda answer: answer.account.guid),
    "list_user_transactions": ("transactions", "list_user_transactions", [USER], lambda answer: answer.transactions[0].guid),
    "read_transaction": ("transactions", "read_transaction", [TRANSACTION, USER], lambda answer: answer.transaction.guid),
    "delete_member": ("members", "delete_member", [MEMBER, USER], None),
    "delete_user": ("users", "delete_user", [USER], None),
}


def main():
    options = parser(__doc__)
    options.add_argument("--list-paths", action=ListPaths, nargs=0, help="print METHOD PATH ACCEPT of all that the client can send")
    options = options.parse_args()
    client = connect(options)

    def drive(name, call, result):
        api, method, arguments, proof = call
        send = getattr(getattr(client, api), f"{method}_with_http_info")
        answer, status, headers = send(*arguments, _request_timeout=options.call_seconds)
        result["status"] = status
        result["request_id"] = headers.get("x-mxgate-request-id")
        if proof is None:
            result["error"] = None if status == 204 else f"status {status} where 204 is declared"
        elif not proof(answer):
            result["error"] = "the answer lacks the value that proves it"

    return run(f"atrium {importlib.metadata.version('atrium')}", CALLS, drive, options)


def connect(options):
    configuration = atrium.Configuration()
    configuration.ssl_ca_cert = options.ca
    atrium.Configuration.set_default(configuration)
    credential = WRONG if options.credentials == "wrong" else ""  # the client demands two strings, and sends no empty ones
    return atrium.AtriumClient(credential, credential, options.base_url)


class ListPaths(argparse.Action):
    """Ends the program like --help does, so that no base URL is asked for."""

    def __call__(self, parser, *rest):
        print("\n".join(sorted(sent_by(atrium.AtriumClient("", "")))))
        parser.exit()


def sent_by(client):
    """What every method of the client would send, as lines, found by calling each with a recorder in place of the network."""
    lines = set()

    def record(path, method, path_parameters, query, headers, **rest):
        lines.add(f"{method} {path} {headers.get('Accept')}")
        return None, None, None

    for api in vars(client).values():
        api.api_client.call_api = record
        for name, method in inspect.getmembers(api, inspect.ismethod):
            if name.endswith("_with_http_info"):
                required = [p for p in inspect.signature(method).parameters.values() if p.kind is not p.VAR_KEYWORD]
                method(*[p.name for p in required])
    return lines


if __name__ == "__main__":
    sys.exit(main())
