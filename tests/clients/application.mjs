// A web application as people write them with Node: JSON, server-sent events, uploads, downloads and a WebSocket of its own.
//
//   node application.mjs [--key FILE --cert FILE]
//
// Says on standard error where it listens.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';

const { values } = parseArgs({ options: { key: { type: 'string' }, cert: { type: 'string' } } });

// Another byte at every place, so that a piece in the wrong place is seen.
const PATTERN = Buffer.alloc(1 << 20);
for (let at = 0; at < PATTERN.length; at += 4) PATTERN.writeUInt32BE((at * 2654435761) >>> 0, at);

// Event streams that wait for the reader's word before the next event.
const streams = new Map();

function json(response, status, value, headers = {}) {
  const body = JSON.stringify(value);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers });
  response.end(body);
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://application');
  const path = url.pathname.replace(/^\/api/, '');
  switch (`${request.method} ${path}`) {
    case 'GET /hello':
      return json(response, 200, { hello: 'world' }, { etag: '"1"', 'set-cookie': ['a=1; Path=/', 'b=2; HttpOnly'] });
    case 'HEAD /hello':
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 17 });
      return response.end();
    case 'GET /cached':
      if (request.headers['if-none-match'] === '"1"') {
        response.writeHead(304, { etag: '"1"' });
        return response.end();
      }
      return json(response, 200, {}, { etag: '"1"' });
    case 'DELETE /hello':
      response.writeHead(204);
      return response.end();
    case 'POST /echo': {
      const parts = [];
      for await (const part of request) parts.push(part);
      return json(response, 201, { method: request.method, query: url.search, body: Buffer.concat(parts).toString() });
    }
    case 'GET /page':
      response.writeHead(200, { 'content-type': 'text/html' });
      return response.end('<!doctype html><title>application</title>');
    case 'GET /broken':
      return json(response, 500, { error: 'broken' });
    case 'GET /redirect':
      response.writeHead(302, { location: '/api/hello' });
      return response.end();
    case 'POST /upload': {
      const hash = createHash('sha256');
      let length = 0;
      for await (const part of request) {
        hash.update(part);
        length += part.length;
      }
      return json(response, 200, { length, sha256: hash.digest('hex') });
    }
    case 'GET /download':
      return download(Number(url.searchParams.get('length')), url.searchParams.has('chunked'), response);
    case 'POST /refuse-upload':
      // Without a look at the body.
      return json(response, 401, { error: 'who are you?' }, { connection: 'close' });
    case 'GET /events':
      return events(url.searchParams.get('name'), response);
    case 'POST /next':
      streams.get(url.searchParams.get('name'))();
      response.writeHead(204);
      return response.end();
    default:
      return json(response, 404, { error: 'not found' });
  }
}

async function download(length, chunked, response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream', ...(chunked ? {} : { 'content-length': length }) });
  for (let left = length; left > 0;) {
    const piece = PATTERN.subarray(0, Math.min(left, PATTERN.length));
    left -= piece.length;
    if (!response.write(piece)) await new Promise((resolve) => response.once('drain', resolve));
  }
  response.end();
}

function events(name, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  let number = 0;
  const next = () => {
    if (number === 3) return response.end();
    response.write(`id: ${number}\ndata: event ${number}\n\n`);
    number += 1;
  };
  streams.set(name, next);
  next();
}

const server = values.key
  ? https.createServer({ key: readFileSync(values.key), cert: readFileSync(values.cert) }, answer)
  : http.createServer(answer);

const sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 30, handleProtocols: (offered) => [...offered][0] });
server.on('upgrade', (request, socket, head) => {
  if (!request.url.startsWith('/api/socket')) {
    socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, socket, head, (ws) => {
    ws.on('message', (data, isBinary) => {
      if (String(data) === 'goodbye') ws.close(4001, 'as you wish');
      else if (String(data) === 'via') ws.send(request.headers.via);
      else ws.send(data, { binary: isBinary });
    });
  });
});

server.listen(0, '127.0.0.1', () => console.error(`listening on port ${server.address().port}`));
