"""dns.py SERVER NAME ADDRESS: a DNS server at SERVER, port 53, that knows one name and its IPv4 address.

Prints a line for every question, so that a test can tell who was asked.
"""

import ipaddress
import socket
import struct
import sys

A = 1
NO_ERROR, NO_SUCH_NAME = 0, 3


def main(server_address, known, address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((server_address, 53))
        print("listening", flush=True)
        while True:
            query, client = server.recvfrom(512)
            name, kind, question = read(query)
            print(name, kind, flush=True)
            server.sendto(answer(query[:2], question, address if name == known else None, kind), client)


def read(query):
    """The first question's name and type, and its bytes (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    (kind,) = struct.unpack_from(">H", query, at + 1)
    return ".".join(labels).lower(), kind, query[12 : at + 5]


def answer(identifier, question, address, kind):
    records = b""
    if address and kind == A:
        # The name as a pointer to the question's, class IN, 5 seconds.
        records = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 5, 4) + ipaddress.IPv4Address(address).packed
    flags = 0x8180 | (NO_ERROR if address else NO_SUCH_NAME)
    return identifier + struct.pack(">HHHHH", flags, 1, bool(records), 0, 0) + question + records


if __name__ == "__main__":
    main(*sys.argv[1:])
