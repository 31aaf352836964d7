// A bank as an API's owner would run it: an OAuth 2.0 server that nobody here wrote, whose refresh tokens rotate and whose
// reuse ends the grant, with access tokens of a few seconds; and an API that takes them and tells what it was sent.
// arguments: CERTIFICATE KEY [FAILING] [DELAY_MS]: the share of token calls that fail with 503 before anything is done, and
// how long others may take at most, half of it before the grant is used and half of it after.
// It prints its port, and then a line of JSON for what became of each token call, each revocation and each bad API call.
// On its own machine: POST /mint?account=NAME&client=ID makes a grant and answers with its refresh token; POST /forget has
// every access token that was used so far taken no longer.
import https from 'node:https';
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';
import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js';

const [certificate, key, failing = '0', delay = '0'] = process.argv.slice(2);
const RESOURCE = 'https://api.mx.test';
const SECRET = 'gateway-secret:/+%0123456789';
const SCOPE = 'accounts:read accounts:write';
const CALLBACK = process.env.CALLBACK ?? 'https://127.0.0.1:18099/callback';
const LIFE = Number(process.env.ACCESS_TOKEN_LIFE ?? 5);

const say = (what) => process.stdout.write(`${JSON.stringify({ at: Date.now(), ...what })}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const late = () => pause((Math.random() * Number(delay)) / 2);

const server = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const { port } = server.address();

// Its own store forgets all but the last one or two thousand entries, and what has expired: a token that is sent too late or
// twice must be known for what it is.
const entries = new Map();

const provider = new Provider(`https://127.0.0.1:${port}`, {
  adapter: (model) => new MemoryAdapter(model, entries),
  clients: [
    {
      client_id: 'gateway',
      client_secret: SECRET,
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      redirect_uris: [CALLBACK],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
  ],
  scopes: ['openid', 'offline_access', ...SCOPE.split(' ')],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_context, client) => client.grantTypeAllowed('refresh_token'),
  ttl: { AccessToken: LIFE, ClientCredentials: LIFE, AuthorizationCode: 60, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: SCOPE, audience: RESOURCE, accessTokenFormat: 'opaque' }),
    },
  },
  findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  cookies: { keys: ['a-key-of-cookies'] },
});
provider.on('grant.revoked', (_context, grant) => say({ revoked: grant }));
provider.on('server_error', (_context, error) => console.error(error));

// Around the token endpoint: failures before it, delays on both sides, and what it did.
provider.use(async (context, next) => {
  if (context.path !== '/token') return next();
  if (Math.random() < Number(failing)) {
    say({ token: 'failed' });
    context.status = 503;
    context.body = '';
    return undefined;
  }
  await late();
  await next();
  const { RefreshToken, RotatedRefreshToken, AccessToken } = context.oidc?.entities ?? {};
  const grant = (RefreshToken ?? AccessToken)?.grantId;
  const { grant_type: type, replica, refresh_token: sent, code, code_verifier: verifier } = context.oidc?.body ?? {};
  const error = context.body?.error;
  say({ token: error ?? 'given', type, grant, account: AccessToken?.accountId, replica, used: RotatedRefreshToken?.jti, next: error ? undefined : RefreshToken?.jti, access: error ? undefined : AccessToken?.jti, sent: error ? sent : undefined, code, verifier });
  await late();
});

async function mint(query) {
  const client = await provider.Client.find(query.get('client') ?? 'gateway');
  const grant = new provider.Grant({ accountId: query.get('account'), clientId: client.clientId });
  grant.addOIDCScope('openid offline_access');
  grant.addResourceScope(RESOURCE, SCOPE);
  const grantId = await grant.save();
  const token = new provider.RefreshToken({ accountId: grant.accountId, client, grantId, gty: 'authorization_code', scope: `openid offline_access ${SCOPE}`, resource: RESOURCE, authTime: Math.floor(Date.now() / 1000) });
  const value = await token.save();
  say({ minted: grantId, account: grant.accountId, jti: token.jti });
  return value;
}

// Tokens that were used, and of them those that are taken no longer.
const known = new Set();
let forgotten = new Set();

// What a request with no token, two of them or a bad one gets is what RFC 6750 says.
async function api(request, response) {
  const sent = request.headersDistinct.authorization ?? [];
  const value = sent.length === 1 ? /^Bearer (.+)$/.exec(sent[0])?.[1] : undefined;
  let token = value && ((await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value)));
  if (token && forgotten.has(value)) token = undefined;
  if (token) known.add(value);
  if (!token || token.isExpired) {
    say({ api: sent.length === 0 ? 'bare' : token ? 'expired' : 'unknown', path: request.url });
    response.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': `Bearer realm="bank"${value ? ', error="invalid_token"' : ''}` });
    return response.end('{"error":"unauthorized"}');
  }
  const told = { account: token.accountId ?? token.clientId, scope: token.scope, headers: request.headers, method: request.method, path: request.url };
  delete told.headers.authorization;
  // As some APIs do: the token comes back, and must not get through.
  response.writeHead(200, { 'content-type': 'application/json', 'x-token': value });
  return response.end(JSON.stringify({ ...told, token: value }));
}

const oidc = provider.callback();
server.on('request', (request, response) => {
  const url = new URL(request.url, 'https://bank');
  if (url.pathname === '/mint') return mint(url.searchParams).then((token) => response.end(token));
  if (url.pathname === '/forget') {
    forgotten = new Set(known);
    return response.end();
  }
  if (url.pathname.startsWith('/api/')) return api(request, response);
  return oidc(request, response);
});
console.log(`port ${port}`);
