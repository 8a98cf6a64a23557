// A page in Chromium: it comes from the site on /, loads MQTT.js from there and connects to wss:// its own host /mqtt.
// The site folder holds page.html as index.html, and mqtt.min.js of the npm package. Chromium's own log of its network
// must show that the page and every session were streams of one HTTP/2 connection (RFC 8441).
//
//   node chromium.mjs --url wss://127.0.0.1:8443/mqtt [--chromium /usr/bin/chromium]

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { expect, readArguments, Suite } from './suite.mjs';

const given = readArguments({ chromium: { type: 'string', default: '/usr/bin/chromium' } });
const suite = new Suite();
const profile = await mkdtemp(join(tmpdir(), 'tidegate-chromium-'));

const netLog = join(profile, 'net-log.json');

const browser = await chromium.launchPersistentContext(profile, {
  executablePath: given.chromium,
  headless: true,
  ignoreHTTPSErrors: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    `--log-net-log=${netLog}`,
  ],
});
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(`page: ${error.message}`));
  page.on('console', (line) => console.error(`page: ${line.text()}`));

  await suite.case('the site serves the page', async () => {
    const answer = await page.goto(`https://${new URL(given.url).host}/`);
    expect('status', answer.status(), 200);
    expect('script', await page.evaluate(() => typeof mqtt.connect), 'function');
    return await page.title();
  });

  for (const [name, options] of [
    ['3.1', { protocolVersion: 3, protocolId: 'MQIsdp' }],
    ['3.1.1', { protocolVersion: 4 }],
    ['5', { protocolVersion: 5 }],
  ]) {
    for (const length of [12, 100_000]) {
      await suite.case(`${name} the page hears itself, ${length} bytes`, async () => {
        const seen = await page.evaluate(
          ([options, length]) => window.trip(options, 'é'.repeat(length / 2)),
          [options, length],
        );
        expect('message', seen, { qos: 1, length, same: true });
        return seen;
      });
    }
  }
  await browser.close();
  await suite.case('the page and its sessions share one HTTP/2 connection', async () => {
    const connections = http2Requests(JSON.parse(await readFile(netLog, 'utf8')));
    const own = connections.filter((requests) => requests.some((request) => request[':path'] === '/mqtt'));
    expect('connections with sessions', own.length, 1);
    const paths = new Set(own[0].map((request) => request[':path']));
    expect('the page came by it', paths.has('/') && paths.has('/mqtt.min.js'), true);
    const sessions = own[0].filter((request) => request[':path'] === '/mqtt');
    expect('sessions', sessions.length, 6);
    for (const { ':method': method, ':protocol': protocol } of sessions) {
      expect('request', [method, protocol], ['CONNECT', 'websocket']);
    }
    return 'six sessions';
  });
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
suite.end();

// The heads of the requests of each HTTP/2 connection.
function http2Requests({ constants, events }) {
  const sent = constants.logEventTypes.HTTP2_SESSION_SEND_HEADERS;
  const connections = new Map();
  for (const { type, source, params } of events) {
    if (type !== sent) continue;
    const head = Object.fromEntries(params.headers.map((line) => line.match(/^(:?[^:]+): (.*)$/s).slice(1)));
    connections.set(source.id, [...(connections.get(source.id) ?? []), head]);
  }
  return [...connections.values()];
}
