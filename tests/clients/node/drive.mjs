// Drives every operation of MX's Node SDK, unmodified, against a gateway.
//
// In: a base URL. Out: one JSON line per operation on stdout, then one summary line, as ../python/drive.py
// prints them. Operations come from the prototypes of the API classes, arguments from the declarations.
//
// axios decodes whatever it gets, so an operation is `ok` only when the answer has the status and the shape
// that the SDK declares: 204 and nothing, a PDF, or an object with at least one of the declared fields.
//
// Exit code: 0 when the operations that failed are exactly those expected to, 1 when not, 2 for wrong usage.

import { readFileSync } from "node:fs";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { readDeclarations } from "./declarations.mjs";

// How many operations the pinned release has; finding another number means the introspection is broken.
const OPERATIONS = 166;
// The whole of one call may take this long, however slowly bytes trickle in.
const CALL_MILLISECONDS = 10_000;
const WRONG = "wrong-credential-of-the-caller";

const packages = createRequire(new URL("../../.work/node/", import.meta.url));
const sdk = packages("mx-platform-node");
const sdkVersion = packages("mx-platform-node/package.json").version;
// Values by the name of the argument or body field; a name that is not there gets a value by its type.
const values = JSON.parse(readFileSync(new URL("../arguments.json", import.meta.url), "utf8"));

process.exitCode = await main();

async function main() {
  const options = parseOptions();
  const configuration = configure(options);
  const declarations = readDeclarations(packages("@babel/parser"), packages.resolve("mx-platform-node/dist/api.d.ts"));
  const operations = findOperations(configuration, declarations);
  if (operations.length !== OPERATIONS) {
    console.error(`found ${operations.length} operations, expected ${OPERATIONS}`);
    return 1;
  }
  const wanted = options.only.length > 0 ? select(operations, options.only) : operations;
  const expected = new Set(select(operations, options["expect-failures"]).map(({ name }) => name));
  const argumentOf = argumentMaker(declarations, options.argument);

  const started = performance.now();
  const failed = [];
  for (const operation of wanted) {
    const result = await drive(operation, argumentOf, declarations);
    console.log(JSON.stringify(result));
    if (!result.ok) failed.push(operation.name);
  }
  const unexpectedFailures = failed.filter((name) => !expected.has(name));
  const unexpectedSuccesses = wanted.map(({ name }) => name).filter((name) => expected.has(name) && !failed.includes(name));
  const summary = {
    client: `mx-platform-node ${sdkVersion}`,
    operations: wanted.length,
    ok: wanted.length - failed.length,
    failed,
    unexpected_failures: unexpectedFailures,
    unexpected_successes: unexpectedSuccesses,
    seconds: Math.round(performance.now() - started) / 1000,
  };
  console.log(JSON.stringify({ summary }));
  configuration.baseOptions.httpAgent.destroy();
  configuration.baseOptions.httpsAgent.destroy();
  return unexpectedFailures.length + unexpectedSuccesses.length > 0 ? 1 : 0;
}

function parseOptions() {
  const names = (text) => (text ?? "").split(",").filter(Boolean);
  try {
    const { values: given } = parseArgs({
      options: {
        "base-url": { type: "string" },
        ca: { type: "string" },
        credentials: { type: "string", default: "none" },
        bearer: { type: "string" },
        "accept-version": { type: "string" },
        only: { type: "string" },
        "expect-failures": { type: "string" },
        argument: { type: "string", multiple: true, default: [] },
      },
    });
    if (!given["base-url"]) throw new Error("--base-url is required");
    if (!["none", "wrong", "empty"].includes(given.credentials)) throw new Error("--credentials is none, wrong or empty");
    const argument = given.argument.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw new Error("--argument takes NAME=VALUE");
      return [plain(pair.slice(0, at)), pair.slice(at + 1)];
    });
    return { ...given, argument, only: names(given.only), "expect-failures": names(given["expect-failures"]) };
  } catch (error) {
    return usage(error.message);
  }
}

function usage(message) {
  console.error(message);
  process.exit(2);
}

function configure(options) {
  const credentials = {
    none: {},
    wrong: { username: WRONG, password: WRONG, accessToken: WRONG },
    empty: { username: "", password: "", accessToken: "" },
  }[options.credentials];
  const keepAlive = { keepAlive: true, maxSockets: 1 };
  return new sdk.Configuration({
    ...credentials,
    ...(options.bearer === undefined ? {} : { accessToken: options.bearer }),
    basePath: options["base-url"],
    baseOptions: {
      httpAgent: new HttpAgent(keepAlive),
      httpsAgent: new HttpsAgent({ ...keepAlive, ca: options.ca && readFileSync(options.ca) }),
      // A proxy variable in the environment, or a followed redirect, would hide what the gateway did.
      proxy: false,
      maxRedirects: 0,
      ...(options["accept-version"] === undefined ? {} : { headers: { "Accept-Version": options["accept-version"] } }),
    },
  });
}

// All operations, in an order in which a stateful MX can answer: deletions last, the user at the very end.
function findOperations(configuration, declarations) {
  const found = [];
  for (const [className, api] of Object.entries(sdk).filter(([name]) => name.endsWith("Api"))) {
    const instance = new api(configuration);
    for (const name of Object.getOwnPropertyNames(api.prototype).filter((name) => name !== "constructor")) {
      const declared = declarations.operations.get(name);
      if (declared?.owner !== className || declared.parameters.length + 1 !== api.prototype[name].length) {
        throw new Error(`${className}.${name} is not what its declaration says`);
      }
      found.push({ name, instance, ...declared });
    }
  }
  const order = ({ name, parameters }) => (name.startsWith("delete") ? 100 - sent(parameters).length : 0);
  return found.sort((a, b) => order(a) - order(b));
}

// The named operations; a name that no operation has ends the program.
function select(operations, names) {
  const known = new Set(operations.map(({ name }) => plain(name)));
  const unknown = names.filter((name) => !known.has(plain(name)));
  if (unknown.length > 0) usage(`no such operation: ${unknown.join(", ")}`);
  const wanted = new Set(names.map(plain));
  return operations.filter(({ name }) => wanted.has(plain(name)));
}

// `create_user`, `createUser` and `CreateUser` are the same operation.
function plain(name) {
  return name.replaceAll("_", "").toLowerCase();
}

async function drive(operation, argumentOf, declarations) {
  const result = { operation: operation.name, ok: false, status: null, error: null, request_id: null };
  try {
    const filled = new Set(sent(operation.parameters));
    const values = operation.parameters.map((parameter) => (filled.has(parameter) ? argumentOf(parameter) : undefined));
    const signal = AbortSignal.timeout(CALL_MILLISECONDS);
    const response = await operation.instance[operation.name](...values, { signal });
    result.status = response.status;
    result.request_id = response.headers["x-mxgate-request-id"] ?? null;
    result.error = fault(operation.answer, response, declarations);
  } catch (error) {
    result.status = error.response?.status ?? null;
    result.request_id = error.response?.headers["x-mxgate-request-id"] ?? null;
    const body = error.response === undefined ? "" : JSON.stringify(error.response.data ?? "");
    result.error = `${error.name}: ${error.message} ${body}`.trim().slice(0, 300);
  }
  result.ok = result.error === null;
  return result;
}

// The required parameters, and every body: the SDK calls some bodies optional, of which MX says that they are required.
function sent(parameters) {
  return parameters.filter(({ optional, type }) => !optional || type.kind === "named");
}

// What is wrong with an answer that axios accepted, or null.
function fault(declared, { status, data }, { fieldsOf }) {
  if (declared.kind === "void") return status === 204 ? null : `status ${status} where 204 is declared`;
  if (declared.name === "File") return String(data).startsWith("%PDF-") ? null : "not a PDF document";
  const fields = fieldsOf(declared.name);
  if (typeof data !== "object" || data === null || Array.isArray(data)) return `not a JSON object, declared is ${declared.name}`;
  if (fields.every(({ name }) => data[name] === undefined || data[name] === null)) return `no field of ${declared.name} is filled in`;
  return null;
}

// Makes valid values: the smallest that MX can be expected to accept.
function argumentMaker({ fieldsOf, valuesOf }, replaced) {
  const byName = new Map([...Object.entries(values).map(([name, value]) => [plain(name), value]), ...replaced]);
  return function valueOf({ name, type }) {
    if (type.kind === "list") return [valueOf({ name: name.replace(/s$/, ""), type: type.item })];
    if (type.kind === "boolean") return false;
    if (type.kind === "number") return 1;
    if (type.kind !== "named") return byName.get(plain(name)) ?? "test";
    if (valuesOf(type.name)) return valuesOf(type.name)[0];
    const fields = fieldsOf(type.name);
    if (!fields) throw new Error(`no declaration of ${type.name}`);
    const required = fields.filter(({ optional }) => !optional);
    const chosen = required.length > 0 ? required : fields;
    return Object.fromEntries(chosen.map((field) => [field.name, valueOf(field)]));
  };
}
