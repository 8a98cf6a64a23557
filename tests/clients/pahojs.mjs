// Paho JS, the other browser client, in 3.1 and 3.1.1. In Node it is given npm's ws as the WebSocket of a browser.
//
//   node pahojs.mjs --url wss://127.0.0.1:8443/mqtt --ca ca.pem
//   node pahojs.mjs --url ws://127.0.0.1:9001/mqtt --direct

import { binaryPayload, expect, Inbox, readArguments, sha256, Suite } from './suite.mjs';
import { connectPaho, Paho } from './paho_browser.mjs';

const NAMES = { 3: '3.1', 4: '3.1.1' };

const given = readArguments({
  versions: { type: 'string', default: '3,4' },
  'max-qos': { type: 'string', default: '2' },
  binary: { type: 'string', default: '100000' },
});
const maxQos = Number(given['max-qos']);
const suite = new Suite();
let clients = 0;

function connect(scope, version, options = {}) {
  clients += 1;
  const id = options.id ?? `paho${version}-${given.run}-${clients}`;
  return connectPaho(scope, given, id, { mqttVersion: version, ...options.connect });
}

function message(topic, payload, qos, retained = false) {
  const made = new Paho.Message(payload);
  made.destinationName = topic;
  made.qos = qos;
  made.retained = retained;
  return made;
}

async function roundTrip(scope, version, qos) {
  const topic = `${given.run}/${version}/qos${qos}`;
  const client = await connect(scope, version);
  const granted = await client.subscribed(topic, qos);
  client.send(message(topic, `hello at ${qos}`, qos));
  const [got] = await client.inbox.first(1);
  const seen = { payload: got.payloadString, qos: got.qos, retained: got.retained };
  expect('message', seen, { payload: `hello at ${qos}`, qos: Math.min(qos, maxQos), retained: false });
  return { granted, ...seen };
}

async function retained(scope, version) {
  const topic = `${given.run}/${version}/state`;
  const writer = await connect(scope, version);
  const written = new Inbox();
  writer.onMessageDelivered = (delivered) => written.put(delivered);
  writer.send(message(topic, 'on', 1, true));
  await written.first(1);
  const reader = await connect(scope, version);
  await reader.subscribed(topic, 1);
  const [got] = await reader.inbox.first(1);
  expect('message', [got.payloadString, got.retained], ['on', true]);
  writer.send(message(topic, '', 1, true));
  await written.first(2);
  return 'on, retained';
}

async function will(scope, version) {
  const topic = `${given.run}/${version}/gone`;
  const watcher = await connect(scope, version);
  await watcher.subscribed(topic, 1);
  const doomed = await connect(scope, version, { connect: { willMessage: message(topic, 'cut', 1) } });
  doomed.socket.terminate();
  const [got] = await watcher.inbox.first(1);
  expect('will', got.payloadString, 'cut');
  return 'cut';
}

async function persistentSession(scope, version) {
  const topic = `${given.run}/${version}/queue`;
  const options = { id: `keep${version}-${given.run}`, connect: { cleanSession: false } };
  const before = await connect(scope, version, options);
  await before.subscribed(topic, 1);
  before.disconnect();
  await before.ended;
  const writer = await connect(scope, version);
  const written = new Inbox();
  writer.onMessageDelivered = (delivered) => written.put(delivered);
  for (const word of ['one', 'two', 'three']) writer.send(message(topic, word, 1));
  await written.first(3);
  const after = await connect(scope, version, options);
  const queued = (await after.inbox.first(3)).map((got) => got.payloadString);
  expect('queued messages', queued, ['one', 'two', 'three']);
  after.disconnect();
  await after.ended;
  await connect(scope, version, { id: options.id });
  return queued;
}

async function binary(scope, version) {
  const topic = `${given.run}/${version}/blob`;
  const client = await connect(scope, version);
  await client.subscribed(topic, 1);
  const payload = binaryPayload(Number(given.binary));
  client.send(message(topic, payload, 1));
  const [got] = await client.inbox.first(1);
  expect('hash', sha256(got.payloadBytes), sha256(payload));
  return { length: got.payloadBytes.length, sha256: sha256(payload) };
}

async function wrongPassword(scope, version) {
  try {
    await connect(scope, version, { connect: { userName: 'client', password: 'not this' } });
  } catch (refusal) {
    return { code: refusal.errorCode, message: refusal.errorMessage };
  }
  throw new Error('a wrong password was let in');
}

for (const version of given.versions.split(',').map(Number)) {
  const name = NAMES[version];
  for (const qos of [0, 1, 2]) await suite.case(`${name} qos ${qos}`, (scope) => roundTrip(scope, version, qos));
  await suite.case(`${name} retained`, (scope) => retained(scope, version));
  await suite.case(`${name} will on a cut connection`, (scope) => will(scope, version));
  await suite.case(`${name} persistent session`, (scope) => persistentSession(scope, version));
  await suite.case(`${name} binary`, (scope) => binary(scope, version));
  await suite.case(`${name} wrong password`, (scope) => wrongPassword(scope, version));
}
suite.end();
