// Drives MX's own proxy for widget URLs, @mxenabled/sso-api-proxy, unmodified, against a gateway.
//
// The proxy wants credentials, or it asks a terminal for them, so it gets wrong ones (whatever --credentials
// says): the gateway has to replace them. It listens on a Unix socket, because on a port it would bind all
// addresses of the machine. It dies of an upstream answer that is not 2xx; the next request starts it anew.
//
// Exit code: 0 when the requests that failed are exactly those expected to, 1 when not, 2 for wrong usage.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { argumentValues, packages, parseOptions, run, WRONG } from "../node/driver.mjs";

const USER = argumentValues.user_guid;
const QUERY = "?widget_type=connect_widget";
const BODY = { widget_url: { widget_type: "connect_widget" } };

const REQUESTS = [
  { name: "ping", method: "GET", path: "/ping", status: 200 },
  { name: "getUsersWidgetUrls", method: "GET", path: `/users/${USER}/widget_urls${QUERY}`, status: 200 },
  { name: "postUsersWidgetUrls", method: "POST", path: `/users/${USER}/widget_urls`, body: BODY, status: 200 },
  { name: "getUserWidgetUrls", method: "GET", path: `/user/widget_urls${QUERY}`, status: 200 },
  { name: "postUserWidgetUrls", method: "POST", path: "/user/widget_urls", body: BODY, status: 200 },
  // The proxy's own refusal; the gateway is not asked.
  { name: "getUserWidgetUrlsWithoutType", method: "GET", path: "/user/widget_urls", status: 422 },
];

const { version } = packages("@mxenabled/sso-api-proxy/package.json");
const directory = mkdtempSync(join(tmpdir(), "sso-proxy-"));
const options = parseOptions();
let proxy;

try {
  process.exitCode = await run(`@mxenabled/sso-api-proxy ${version}`, REQUESTS, drive, options);
} finally {
  proxy?.process.kill();
  rmSync(directory, { recursive: true });
}

async function drive({ name, method, path, body, status }, result) {
  if (proxy === undefined || proxy.process.exitCode !== null) proxy = await start();
  const answer = await send(method, path, body).catch(async (error) => {
    // Its death and the end of the connection are one event, seen in either order.
    await Promise.race([proxy.exited, new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
    throw proxy.process.exitCode === null ? error : new Error(`the proxy died: ${proxy.lastError()}`);
  });
  result.status = answer.status;
  if (answer.status !== status) result.error = `status ${answer.status} where ${status} is expected: ${answer.text}`;
  else if (name !== "ping" && status === 200) result.error = widgetFault(answer.text);
}

function widgetFault(text) {
  const url = JSON.parse(text).widget_url?.url;
  return /^https?:\/\//.test(url) ? null : `no widget URL in ${text}`;
}

// Resolves once the proxy says that it listens; rejects when it ends before that.
function start() {
  const socket = join(directory, "socket");
  rmSync(socket, { force: true });
  const cli = packages.resolve("@mxenabled/sso-api-proxy/build/src/cli.js");
  const child = spawn(process.execPath, [cli], {
    cwd: directory, // it looks for configuration files where it runs, and above
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      MX_CLIENT_ID: WRONG,
      MX_API_KEY: WRONG,
      MX_API_HOST: options["base-url"],
      MX_DEFAULT_USER_GUID: USER,
      PORT: socket,
      ...(options.ca === undefined ? {} : { NODE_EXTRA_CA_CERTS: options.ca }),
    },
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
  const lastError = () => errors.split("\n").find((line) => /Error/.test(line))?.trim() ?? errors.slice(0, 200);
  const exited = new Promise((resolve) => child.once("close", resolve));
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => child.kill(), options.callMilliseconds);
    child.stdout.setEncoding("utf8").on("data", (text) => {
      if (!text.includes("Running server")) return;
      clearTimeout(late);
      resolve({ process: child, exited, lastError });
    });
    exited.then(() => reject(new Error(`the proxy did not start: ${lastError()}`)));
  });
}

function send(method, path, body) {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? "" : JSON.stringify(body);
    const outgoing = request(
      {
        socketPath: join(directory, "socket"),
        method,
        path,
        headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text), Connection: "close" },
        signal: AbortSignal.timeout(options.callMilliseconds),
      },
      async (response) => {
        try {
          resolve({ status: response.statusCode, text: (await response.setEncoding("utf8").toArray()).join("") });
        } catch (error) {
          reject(error);
        }
      },
    );
    outgoing.once("error", reject).end(text);
  });
}
