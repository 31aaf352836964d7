// Drives every operation of MX's Node SDK, unmodified, against a gateway.
//
// Operations come from the prototypes of the API classes, arguments from the declarations that MX ships, so a
// new release needs no change here, except for OPERATIONS when MX adds or drops an operation.
//
// axios decodes whatever it gets, so an operation is `ok` only when the answer has the status and the shape
// that the SDK declares: 204 and nothing, a PDF, or an object with at least one of the declared fields.
//
// Exit code: 0 when the operations that failed are exactly those expected to, 1 when not, 2 for wrong usage.

import { readFileSync } from "node:fs";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { readDeclarations } from "./declarations.mjs";
import { argumentValues, packages, parseOptions, plain, run, usage, WRONG } from "./driver.mjs";

// How many operations the pinned release has; finding another number means the introspection is broken.
const OPERATIONS = 166;

const sdk = packages("mx-platform-node");
const { version } = packages("mx-platform-node/package.json");

process.exitCode = await main();

async function main() {
  const options = parseOptions({
    bearer: { type: "string" },
    password: { type: "string" },
    certificate: { type: "string" },
    key: { type: "string" },
    "accept-version": { type: "string" },
    argument: { type: "string", multiple: true, default: [] },
  });
  const configuration = configure(options);
  const declarations = readDeclarations(packages("@babel/parser"), packages.resolve("mx-platform-node/dist/api.d.ts"));
  const operations = findOperations(configuration, declarations);
  if (operations.length !== OPERATIONS) {
    console.error(`found ${operations.length} operations, expected ${OPERATIONS}`);
    return 1;
  }
  const valueOf = valueMaker(declarations, options.argument.map(pair));
  const exitCode = await run(`mx-platform-node ${version}`, operations, drive, options);
  configuration.baseOptions.httpAgent.destroy();
  configuration.baseOptions.httpsAgent.destroy();
  return exitCode;

  async function drive({ name, instance, parameters, answer }, result) {
    const filled = sent(parameters);
    const values = parameters.map((parameter) => (filled.includes(parameter) ? valueOf(parameter) : undefined));
    const response = await instance[name](...values, { signal: AbortSignal.timeout(options.callMilliseconds) }).catch((error) => {
      if (error.response === undefined) throw error;
      result.error = `${error.message}: ${JSON.stringify(error.response.data ?? "")}`;
      return error.response;
    });
    result.status = response.status;
    result.request_id = response.headers["x-mxgate-request-id"] ?? null;
    result.error ??= fault(answer, response, declarations);
  }
}

function pair(text) {
  const at = text.indexOf("=");
  return at > 0 ? [plain(text.slice(0, at)), text.slice(at + 1)] : usage("--argument takes NAME=VALUE");
}

function configure(options) {
  const credentials = {
    none: {},
    wrong: { username: WRONG, password: WRONG, accessToken: WRONG },
    empty: { username: "", password: "", accessToken: "" },
  }[options.credentials];
  const file = (path) => path && readFileSync(path);
  const tls = { ca: file(options.ca), cert: file(options.certificate), key: file(options.key) };
  const keepAlive = { keepAlive: true, maxSockets: 1 };
  return new sdk.Configuration({
    ...credentials,
    ...(options.password === undefined ? {} : { username: "anybody", password: options.password }),
    ...(options.bearer === undefined ? {} : { accessToken: options.bearer }),
    basePath: options["base-url"],
    baseOptions: {
      httpAgent: new HttpAgent(keepAlive),
      httpsAgent: new HttpsAgent({ ...keepAlive, ...tls }),
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

// The required parameters, and every body: the SDK calls some bodies optional, of which MX says that they are required.
function sent(parameters) {
  return parameters.filter(({ optional, type }) => !optional || type.kind === "named");
}

// What is wrong with an answer that axios accepted, or null.
function fault(declared, { status, data }, { fieldsOf }) {
  if (declared.kind === "void") return status === 204 ? null : `status ${status} where 204 is declared`;
  if (declared.name === "File") return String(data).startsWith("%PDF-") ? null : "not a PDF document";
  if (typeof data !== "object" || data === null || Array.isArray(data)) return `not a JSON object, declared is ${declared.name}`;
  const filled = fieldsOf(declared.name).some(({ name }) => data[name] !== undefined && data[name] !== null);
  return filled ? null : `no field of ${declared.name} is filled in`;
}

// Makes valid values: the smallest that MX can be expected to accept.
function valueMaker({ fieldsOf, valuesOf }, replaced) {
  const byName = new Map([...Object.entries(argumentValues).map(([name, value]) => [plain(name), value]), ...replaced]);
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
