// Uses the application of application.mjs as pages do, and says what came of each case: through the gateway or directly, the
// lines are the same.
//
//   node application_client.mjs --url https://127.0.0.1:8443 --ca FILE [--size BYTES] [--direct]

import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import WebSocket from 'ws';
import { Suite, readArguments } from './suite.mjs';

const { url, tls, size } = readArguments({ size: { type: 'string', default: String(64 << 20) } });
const base = new URL(url);
const agent = base.protocol === 'https:'
  ? new https.Agent({ keepAlive: true, ...tls })
  : new http.Agent({ keepAlive: true });
const { request } = base.protocol === 'https:' ? https : http;

// What is of one connection, of the moment, or said by whoever stands between is not compared.
const NOT_COMPARED = ['connection', 'keep-alive', 'date', 'transfer-encoding'];

function begin(method, path, headers = {}) {
  return request(new URL(path, base), { method, headers, agent });
}

function answered(sent) {
  return new Promise((resolve, reject) => sent.on('response', resolve).on('error', reject));
}

async function whole(response) {
  const parts = [];
  for await (const part of response) parts.push(part);
  const headers = Object.fromEntries(Object.entries(response.headers).filter(([name]) => !NOT_COMPARED.includes(name)));
  return { status: response.statusCode, headers, body: Buffer.concat(parts).toString() };
}

async function ask(method, path, headers = {}, body = undefined) {
  const sent = begin(method, path, headers);
  sent.end(body);
  return whole(await answered(sent));
}

async function hashed(response) {
  const hash = createHash('sha256');
  let length = 0;
  for await (const part of response) {
    hash.update(part);
    length += part.length;
  }
  return { status: response.statusCode, length, sha256: hash.digest('hex') };
}

const suite = new Suite();

await suite.case('json', () => ask('GET', '/api/hello'));
await suite.case('head', () => ask('HEAD', '/api/hello'));
await suite.case('no content', () => ask('DELETE', '/api/hello'));
await suite.case('not modified', () => ask('GET', '/api/cached', { 'if-none-match': '"1"' }));
await suite.case('not found', () => ask('GET', '/api/nothing'));
await suite.case('an error', () => ask('GET', '/api/broken'));
await suite.case('a redirect', () => ask('GET', '/api/redirect'));
await suite.case('a body with a length', () => ask('POST', '/api/echo?a=%20b', { 'content-length': 5 }, 'hello'));
await suite.case('a body in chunks', () => ask('POST', '/api/echo', { 'transfer-encoding': 'chunked' }, 'hello'));
await suite.case('an empty body', () => ask('POST', '/api/echo', { 'content-length': 0 }));

await suite.case('a body that waits for leave', async () => {
  const sent = begin('POST', '/api/echo', { expect: '100-continue', 'content-length': 5 });
  sent.flushHeaders();
  await new Promise((resolve, reject) => sent.on('continue', resolve).on('error', reject));
  sent.end('hello');
  return whole(await answered(sent));
});

await suite.case('each event before the next', async () => {
  const name = String(Math.random());
  const sent = begin('GET', `/api/events?name=${name}`);
  sent.end();
  const response = await answered(sent);
  const events = [];
  let text = '';
  for await (const part of response) {
    text += part;
    while (text.includes('\n\n')) {
      const [event, rest] = [text.slice(0, text.indexOf('\n\n')), text.slice(text.indexOf('\n\n') + 2)];
      events.push(event);
      text = rest;
      // Only now is the next one sent.
      await ask('POST', `/api/next?name=${name}`);
    }
  }
  return { status: response.statusCode, type: response.headers['content-type'], events, rest: text };
});

await suite.large('a large upload', async () => {
  const length = Number(size);
  const piece = Buffer.alloc(1 << 20, 'upload');
  const hash = createHash('sha256');
  const sent = begin('POST', '/api/upload', { 'content-length': length });
  const response = answered(sent);
  for (let left = length; left > 0;) {
    const part = piece.subarray(0, Math.min(left, piece.length));
    left -= part.length;
    hash.update(part);
    if (!sent.write(part)) await new Promise((resolve) => sent.once('drain', resolve));
  }
  sent.end();
  const answer = await whole(await response);
  return { ...answer, same: JSON.parse(answer.body).sha256 === hash.digest('hex') };
});

for (const how of ['', '&chunked']) {
  await suite.large(`a large download${how}`, async () => {
    const sent = begin('GET', `/api/download?length=${size}${how}`);
    sent.end();
    return hashed(await answered(sent));
  });
}

await suite.case('an upload that is refused', async () => {
  const sent = begin('POST', '/api/refuse-upload', { 'content-length': 3, expect: '100-continue' });
  sent.flushHeaders();
  const answer = await whole(await answered(sent));
  sent.destroy();
  return answer;
});

function socket(path, protocols = []) {
  const target = new URL(path, base);
  target.protocol = target.protocol.replace('http', 'ws');
  return new WebSocket(target, protocols, { ...tls, maxPayload: 1 << 30 });
}

await suite.case('a web socket', async () => {
  const ws = socket('/api/socket', ['chat', 'other']);
  await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject));
  const echoes = [];
  const large = Buffer.alloc(4 << 20, 'x');
  for (const message of ['text', Buffer.from([0, 1, 2]), large]) {
    ws.send(message);
    const [data, isBinary] = await new Promise((resolve) => ws.once('message', (...all) => resolve(all)));
    echoes.push({ isBinary, length: data.length, same: Buffer.from(data).equals(Buffer.from(message)) });
  }
  ws.ping('p');
  const pong = await new Promise((resolve) => ws.once('pong', (data) => resolve(String(data))));
  ws.send('goodbye');
  const [code, reason] = await new Promise((resolve) => ws.once('close', (...all) => resolve(all)));
  return { protocol: ws.protocol, extensions: ws.extensions, echoes, pong, code, reason: String(reason) };
});

await suite.case('a web socket that is refused', async () => {
  const ws = socket('/api/elsewhere');
  return new Promise((resolve) => {
    ws.on('unexpected-response', (sent, response) => resolve(response.statusCode)).on('error', () => {});
  });
});

agent.destroy();
suite.end();
