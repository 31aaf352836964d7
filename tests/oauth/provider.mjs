// An OAuth 2.0 server that nobody here wrote, as an API's owner would run it: code with PKCE, refresh tokens that rotate
// and whose reuse ends the grant, revocation, client credentials, TLS, access tokens of 5 s.
// arguments: CERTIFICATE KEY [CALLBACK HOST]. It prints its port, and then what became of grants.
import https from 'node:https';
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [certificate, key, callback = 'https://127.0.0.1:18099/callback', host = '127.0.0.1'] = process.argv.slice(2);
const RESOURCE = 'https://api.mx.test';
const SECRET = 'gateway-secret:/+%0123456789';

const server = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const { port } = server.address();

const client = (id, method, grants) => ({
  client_id: id,
  client_secret: SECRET,
  grant_types: grants,
  redirect_uris: grants.includes('authorization_code') ? [callback] : [],
  response_types: grants.includes('authorization_code') ? ['code'] : [],
  token_endpoint_auth_method: method,
});

const provider = new Provider(`https://${host}:${port}`, {
  clients: [
    client('gateway', 'client_secret_basic', ['authorization_code', 'refresh_token']),
    client('gateway-post', 'client_secret_post', ['client_credentials']),
    client('gateway-basic', 'client_secret_basic', ['client_credentials']),
  ],
  scopes: ['openid', 'offline_access', 'mx:read', 'mx:write'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_context, client) => client.grantTypeAllowed('refresh_token'),
  ttl: { AccessToken: 5, ClientCredentials: 5, AuthorizationCode: 60, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'mx:read mx:write', audience: RESOURCE, accessTokenFormat: 'opaque' }),
    },
  },
  findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  cookies: { keys: ['a-key-of-cookies'] },
});
provider.on('grant.revoked', () => console.log('revoked'));
provider.on('server_error', (_context, error) => console.error(error));
server.on('request', provider.callback());
console.log(`port ${port}`);
