// oidc-provider on loopback, as cases.rs wants it. Everything about OAuth is the package's own; what is added here is a
// store that can be emptied, a log, and a second port by which a test revokes every token or takes the server away.
//
// The environment variable INTEROP holds { log, lifetime, clients }. One line on standard output tells the ports.

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const { log, lifetime, clients } = JSON.parse(process.env.INTEROP);

// The package remarks on this and that. After the line with the ports nobody reads the output any more.
console.info = console.warn;

// --- The store: what the package's own store is, but within reach ---

const models = new Map();

class Store {
  constructor(model) {
    if (!models.has(model)) models.set(model, new Map());
    this.entries = models.get(model);
  }

  async upsert(id, payload, expiresIn) {
    const end = expiresIn === undefined ? Infinity : Date.now() + expiresIn * 1000;
    this.entries.set(id, { payload, end });
  }

  async find(id) {
    const entry = this.entries.get(id);
    return entry && entry.end > Date.now() ? entry.payload : undefined;
  }

  async destroy(id) {
    this.entries.delete(id);
  }

  async findByUid(uid) {
    return this.findBy((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.findBy((payload) => payload.userCode === userCode);
  }

  findBy(fits) {
    return [...this.entries.values()].map(({ payload }) => payload).find(fits);
  }

  async consume(id) {
    this.entries.get(id).payload.consumed = Math.floor(Date.now() / 1000);
  }

  async revokeByGrantId(grantId) {
    for (const [id, { payload }] of this.entries) {
      if (payload.grantId === grantId) this.entries.delete(id);
    }
  }
}

// --- The server ---

const server = createServer();
await listen(0);
const { port } = server.address();

const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: Store,
  clients: clients.map((client) => ({
    redirect_uris: [],
    response_types: [],
    grant_types: client.grant_types ?? [
      'client_credentials', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code',
    ],
    scope: 'items:read items:write openid offline_access',
    ...client,
  })),
  scopes: ['items:read', 'items:write', 'openid', 'offline_access'],
  features: {
    clientCredentials: { enabled: true },
    // Its pages take any name and password; login.rs is the user.
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  // Each refresh token is good for once. The second time ends the grant: that is the package's own doing.
  rotateRefreshToken: true,
  ttl: { ClientCredentials: lifetime, AccessToken: lifetime },
});

// One line for each request that was answered. No token, no secret: who, where, and how it ended.
provider.use(async (ctx, next) => {
  await next();
  const line = {
    at: new Date().toISOString(),
    path: ctx.path,
    status: ctx.status,
    client: ctx.oidc?.client?.clientId,
    error: ctx.body?.error,
  };
  appendFileSync(log, `${JSON.stringify(line)}\n`);
});

server.on('request', provider.callback());

function listen(at) {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at, '127.0.0.1', () => {
      server.off('error', reject);
      resolve();
    });
  });
}

// --- The control port ---

const orders = {
  // Every access token is gone from one moment to the next.
  '/revoke-all': async () => ['ClientCredentials', 'AccessToken'].forEach((model) => models.get(model)?.clear()),
  // The port is closed, and so is every connection. What was issued stays.
  '/down': () => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  }),
  '/up': () => listen(port),
};

const control = createServer(async (request, response) => {
  const order = orders[request.url];
  if (!order) {
    response.writeHead(404).end();
    return;
  }
  await order();
  response.writeHead(204).end();
});

control.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port, control: control.address().port }));
});

// When whoever started this has gone, so has the reason to be here.
process.stdin.on('end', () => process.exit(0)).resume();
