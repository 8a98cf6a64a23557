// The two-way example of the mosquitto article: a page (user `client`) behind the gateway, a server program (user
// `server`) at the broker's own TCP port, and an access list: the client writes /p/client/upload and reads
// /p/client/download.
//
//   node two_way.mjs --url wss://127.0.0.1:8443/mqtt --ca ca.pem --python venv/bin/python --broker-port 1883

import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { expect, Inbox, readArguments, Suite } from './suite.mjs';
import { connectPaho, Paho } from './paho_browser.mjs';

const given = readArguments({
  python: { type: 'string', default: 'python3' },
  'broker-port': { type: 'string' },
});
const serverSide = fileURLToPath(new URL('server_side.py', import.meta.url));
const atBroker = ['--port', given['broker-port']];
const suite = new Suite();

// As in the article: protocol 3.1.1 and no more than three seconds to connect.
const page = { userName: 'client', password: '123456', mqttVersion: 4, timeout: 3 };

// The server program, watching both topics.
async function watch(scope) {
  const child = spawn(given.python, [serverSide, 'watch', ...atBroker], { stdio: ['ignore', 'pipe', 'inherit'] });
  scope.later(() => child.kill('SIGKILL'));
  const seen = new Inbox();
  createInterface({ input: child.stdout }).on('line', (line) => seen.put(JSON.parse(line)));
  const [ready] = await seen.first(1);
  expect('server', ready, { ready: true });
  return seen;
}

const serverSends = (text) => promisify(execFile)(given.python, [serverSide, 'send', text, ...atBroker]);

await suite.case('the client uploads', async (scope) => {
  const server = await watch(scope);
  const client = await connectPaho(scope, given, `page-${given.run}-1`, page);
  const message = new Paho.Message('Hello World!');
  message.destinationName = '/p/client/upload';
  client.send(message);
  const [, seen] = await server.first(2);
  expect('at the server', seen, { topic: '/p/client/upload', payload: 'Hello World!' });
  return seen;
});

await suite.case('the server pushes', async (scope) => {
  const client = await connectPaho(scope, given, `page-${given.run}-2`, page);
  const granted = await client.subscribed('/p/client/download', 1);
  await serverSends('hello mqtt');
  const [got] = await client.inbox.first(1);
  const seen = { topic: got.destinationName, payload: got.payloadString, qos: got.qos };
  expect('at the client', seen, { topic: '/p/client/download', payload: 'hello mqtt', qos: 1 });
  return { granted, ...seen };
});

await suite.case('the forbidden write arrives nowhere', async (scope) => {
  const server = await watch(scope);
  const client = await connectPaho(scope, given, `page-${given.run}-3`, page);
  await client.subscribed('/p/client/download', 1);
  const delivered = new Promise((resolve) => (client.onMessageDelivered = resolve));
  const forbidden = new Paho.Message('forged');
  forbidden.destinationName = '/p/client/download';
  forbidden.qos = 1;
  client.send(forbidden);
  // 3.1.1 has no way to say no: the broker acknowledges and drops.
  await delivered;
  await serverSends('genuine');
  const [first] = await client.inbox.first(1);
  const [, atServer] = await server.first(2);
  expect('at the client', first.payloadString, 'genuine');
  expect('at the server', atServer, { topic: '/p/client/download', payload: 'genuine' });
  return 'only the genuine message arrived';
});

await suite.case('a wrong password is refused', async (scope) => {
  try {
    await connectPaho(scope, given, `page-${given.run}-4`, { ...page, password: '654321' });
  } catch (refusal) {
    expect('refusal', refusal.errorMessage, 'AMQJS0006E Bad Connack return code:5 Connection Refused: not authorized.');
    return refusal.errorMessage;
  }
  throw new Error('a wrong password was let in');
});

suite.end();
