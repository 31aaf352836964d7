// What the Node drivers share: the options and the report.
//
// A driver's report is one JSON line per operation, { operation, ok, status, error, request_id }, and then one
// line { summary }. Its exit code is 0 when the operations that failed are exactly those that were expected to.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

export const WRONG = "wrong-credential-of-the-caller";

// The pinned packages; tests/setup puts them there.
export const packages = createRequire(new URL("../../.work/node/", import.meta.url));

// Values by the name of the argument or body field; a name that is not there gets a value by its type.
export const argumentValues = JSON.parse(readFileSync(new URL("../arguments.json", import.meta.url), "utf8"));

export function parseOptions(further = {}) {
  try {
    const { values: given } = parseArgs({
      options: {
        "base-url": { type: "string" },
        ca: { type: "string" },
        credentials: { type: "string", default: "none" },
        // How long one call may take, however slowly bytes trickle in.
        "call-seconds": { type: "string", default: "10" },
        only: { type: "string", default: "" },
        "expect-failures": { type: "string", default: "" },
        ...further,
      },
    });
    if (!given["base-url"]) throw new Error("--base-url is required");
    if (!["none", "wrong", "empty"].includes(given.credentials)) throw new Error("--credentials is none, wrong or empty");
    const callMilliseconds = 1000 * Number(given["call-seconds"]);
    if (!(callMilliseconds > 0)) throw new Error("--call-seconds is a number above 0");
    const names = (text) => text.split(",").filter(Boolean);
    return { ...given, callMilliseconds, only: names(given.only), "expect-failures": names(given["expect-failures"]) };
  } catch (error) {
    return usage(error.message);
  }
}

export function usage(message) {
  console.error(message);
  process.exit(2);
}

// `create_user`, `createUser` and `CreateUser` are the same operation.
export function plain(name) {
  return name.replaceAll("_", "").toLowerCase();
}

// Drives the operations, each with a name, that the options ask for; `drive(operation, result)` fills in the
// result, or throws. Returns the exit code.
export async function run(client, operations, drive, options) {
  const expected = new Set(select(operations, options["expect-failures"]).map(({ name }) => name));
  const wanted = options.only.length > 0 ? select(operations, options.only) : operations;
  const started = performance.now();
  const failed = [];
  for (const operation of wanted) {
    const result = { operation: operation.name, ok: false, status: null, error: null, request_id: null };
    try {
      await drive(operation, result);
    } catch (error) {
      result.error = `${error.name}: ${error.message}`;
    }
    result.error &&= result.error.slice(0, 300);
    result.ok = result.error === null;
    console.log(JSON.stringify(result));
    if (!result.ok) failed.push(operation.name);
  }
  const unexpectedFailures = failed.filter((name) => !expected.has(name));
  const unexpectedSuccesses = wanted.map(({ name }) => name).filter((name) => expected.has(name) && !failed.includes(name));
  const summary = {
    client,
    operations: wanted.length,
    ok: wanted.length - failed.length,
    failed,
    unexpected_failures: unexpectedFailures,
    unexpected_successes: unexpectedSuccesses,
    seconds: Math.round(performance.now() - started) / 1000,
  };
  console.log(JSON.stringify({ summary }));
  return unexpectedFailures.length + unexpectedSuccesses.length > 0 ? 1 : 0;
}

// The named operations; a name that no operation has ends the program.
function select(operations, names) {
  const known = new Set(operations.map(({ name }) => plain(name)));
  const unknown = names.filter((name) => !known.has(plain(name)));
  if (unknown.length > 0) usage(`no such operation: ${unknown.join(", ")}`);
  const wanted = new Set(names.map(plain));
  return operations.filter(({ name }) => wanted.has(plain(name)));
}
