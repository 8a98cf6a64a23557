// Opens the page of application.mjs in Chromium and does there what pages do: requests, an upload, server-sent events, a
// WebSocket. Prints what came of it, one line of JSON.
//
//   node application_page.mjs https://127.0.0.1:8443/api/page

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const BROWSER = process.env.CHROMIUM || '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

const profile = mkdtempSync(join(tmpdir(), 'application-page-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: BROWSER,
  args: FLAGS,
  ignoreHTTPSErrors: true,
});
try {
  const page = browser.pages()[0] ?? await browser.newPage();
  page.setDefaultTimeout(15000);
  await page.goto(process.argv[2]);
  console.log(JSON.stringify(await page.evaluate(use)));
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}

// Runs in the page.
async function use() {
  const hello = await (await fetch('/api/hello')).json();
  const body = new Uint8Array(3 << 20).fill(7);
  const upload = await (await fetch('/api/upload', { method: 'POST', body })).json();
  const events = await new Promise((resolve, reject) => {
    const seen = [];
    const source = new EventSource('/api/events?name=page');
    source.onerror = reject;
    source.onmessage = (event) => {
      seen.push(event.data);
      if (seen.length < 3) return fetch('/api/next?name=page', { method: 'POST' });
      source.close();
      return resolve(seen);
    };
  });
  const socket = await new Promise((resolve, reject) => {
    const heard = [];
    const ws = new WebSocket(`wss://${location.host}/api/socket`, ['chat']);
    ws.onerror = () => reject(new Error('the WebSocket failed'));
    ws.onopen = () => ws.send('via');
    ws.onmessage = (message) => {
      heard.push(message.data);
      ws.send(heard.length < 2 ? 'echo' : 'goodbye');
    };
    ws.onclose = ({ code, reason, wasClean }) => resolve({ heard, code, reason, wasClean, protocol: ws.protocol });
  });
  const hops = performance.getEntriesByType('resource').map((entry) => entry.nextHopProtocol);
  const [{ nextHopProtocol }] = performance.getEntriesByType('navigation');
  return { hello, upload: upload.length, events, socket, hops: [...new Set([nextHopProtocol, ...hops])] };
}
