#!/usr/bin/env python3
"""Writes answers.json: a plausible answer for every operation of MX's Platform API.

Usage: generate_answers.py v20111101.yml v20250224.yml > answers.json

The arguments are MX's own OpenAPI documents (github.com/mxenabled/openapi, MIT licence), which are not part
of this repository; field names, types and example values are theirs. Needs PyYAML. Per operation there is
one entry for each set of versions that answer alike (a field whose type changed is left out of the later one):
  status    of the answer
  list      the name of the array that is paginated, when the answer is
  per_page  the most records on a page, when it is
  required  the names of which a request's JSON body must hold one, when it must have a body: MX's schemas demand
            none, so where the versions name their object differently, either will do
  body      the answer; absent for answers without one and for the PDF
"""

import json
import sys

import yaml

METHODS = ("get", "post", "put", "delete")
# Operations that only MX's guides describe; key rotation is not here, since the stand-in does it.
TOKEN = {
    "access_token": "DCOwM2Zxxc0YO507ZZqIiJ8gBN5HdSQG4_g3v3xjFlGUM",
    "expires_at": None,
    "scope": "user-guid:USR-101ad774-288b-44ed-ad16-da87d522ea20 read-protected",
    "token_type": "Bearer",
}
DESCRIBED_IN_GUIDES = {"exchangeProcessorCode": TOKEN, "exchangePaymentProcessorCode": TOKEN}


class Loader(yaml.SafeLoader):
    """Leaves dates as the text that they are."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Document:
    """One OpenAPI document."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.root = yaml.load(file, Loader)
        self.version = "v" + self.root["info"]["version"]

    def resolve(self, node):
        while "$ref" in node:
            target = self.root
            for key in node["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            node = target
        return node

    def operations(self):
        for path in self.root["paths"].values():
            for method in METHODS:
                if method in path:
                    yield path[method], path.get("parameters", []) + path[method].get("parameters", [])

    def sample(self, schema):
        schema = self.resolve(schema)
        if "allOf" in schema:
            merged = {}
            for part in schema["allOf"]:
                merged.update(self.sample(part))
            return merged
        # Some of MX's arrays do not say that they are one.
        kind = schema.get("type", "array" if "items" in schema else "object")
        if kind == "array":
            return schema.get("example") or [self.sample(schema["items"])]
        if kind == "object":
            return {key: self.sample(value) for key, value in schema.get("properties", {}).items()}
        return scalar(schema, kind)

    def entry(self, operation, parameters):
        status, response = min(operation["responses"].items())
        entry = {"status": int(status)}
        content = next(iter(response.get("content", {}).items()), None)
        if content and "json" in content[0]:
            entry["body"] = self.sample(content[1]["schema"])
            if "pagination" in entry["body"]:
                del entry["body"]["pagination"]
                arrays = [key for key, value in entry["body"].items() if isinstance(value, list)]
                assert len(arrays) == 1, operation["operationId"]
                entry["list"] = arrays[0]
                entry["per_page"] = 100
        for parameter in map(self.resolve, parameters):
            long_pages = parameter["name"] == "records_per_page" and "1000" in parameter.get("description", "")
            if long_pages and "list" in entry:
                entry["per_page"] = 1000
        request = operation.get("requestBody", {})
        if request.get("required"):
            schema = self.resolve(next(iter(request["content"].values()))["schema"])
            names = schema.get("required") or [
                key for key, value in schema["properties"].items() if "$ref" in value or value["type"] == "array"
            ]
            # Beside the object that is created there may be optional ones, which the answer does not have.
            entry["required"] = [next((name for name in names if name in entry.get("body", {})), names[0])]
        return entry


def scalar(schema, kind):
    value = schema.get("example")
    choices = [choice for choice in schema.get("enum", []) if choice is not None]
    if choices and value not in choices:
        value = choices[0]
    if value is None:
        return None if schema.get("nullable") else {"string": "text", "boolean": False}.get(kind, 0)
    if kind == "string":
        return str(value).lower() if isinstance(value, bool) else str(value)
    if kind == "integer":
        return int(float(value))
    if kind == "number":
        return float(value) if "." in str(value) else int(value)
    return value if isinstance(value, bool) else str(value).lower() == "true"


def without_conflicts(newer, older):
    """The newer version's sample without the fields whose type changed, so that clients of either version read it."""
    if isinstance(newer, dict) and isinstance(older, dict):
        return {
            key: without_conflicts(value, older.get(key))
            for key, value in newer.items()
            if not conflict(value, older.get(key))
        }
    if isinstance(newer, list) and isinstance(older, list):
        return [without_conflicts(value, older[0]) for value in newer]
    return newer


def conflict(one, other):
    kind = {int: float}
    kinds = {kind.get(type(value), type(value)) for value in (one, other) if value is not None}
    return len(kinds) > 1


def main():
    operations = {
        name: [{"versions": ["v20111101", "v20250224"], "status": 200, "body": body}]
        for name, body in DESCRIBED_IN_GUIDES.items()
    }
    for document in map(Document, sys.argv[1:]):
        for operation, parameters in document.operations():
            entry = document.entry(operation, parameters)
            entries = operations.setdefault(operation["operationId"], [])
            if entries and "body" in entry:
                entry["body"] = without_conflicts(entry["body"], entries[0].get("body"))
            for known in entries:
                if "required" in entry and "required" in known:
                    entry["required"] = known["required"] = sorted({*known["required"], *entry["required"]})
            same = next((known for known in entries if {**known, "versions": 0} == {**entry, "versions": 0}), None)
            if same:
                same["versions"].append(document.version)
            else:
                entries.append({"versions": [document.version], **entry})
    print("{")
    lines = [
        f"{json.dumps(name)}: {json.dumps(entries, separators=(',', ':'))}"
        for name, entries in sorted(operations.items())
    ]
    print(",\n".join(lines))
    print("}")


main()
