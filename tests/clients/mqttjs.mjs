// MQTT.js 5 in 3.1, 3.1.1 and 5: everything an application does with a broker.
//
//   node mqttjs.mjs --url wss://127.0.0.1:8443/mqtt --ca ca.pem [--versions 3,4,5] [--max-qos 2] [--large] [--only qos]
//   node mqttjs.mjs --url mqtt://127.0.0.1:1883 --direct

import mqtt from 'mqtt';

import { binaryPayload, expect, Inbox, readArguments, sha256, Suite } from './suite.mjs';

const MEGABYTE = 1024 * 1024;
const BURST = 5_000;
const NAMES = { 3: '3.1', 4: '3.1.1', 5: '5' };

const given = readArguments({
  versions: { type: 'string', default: '3,4,5' },
  'max-qos': { type: 'string', default: '2' },
  binary: { type: 'string', default: String(MEGABYTE) },
  large: { type: 'boolean', default: false },
});
// RabbitMQ grants QoS 1 to whoever asks for 2.
const maxQos = Number(given['max-qos']);
const suite = new Suite();
let clients = 0;

// A connected client; its messages are in `inbox`.
async function connect(scope, version, options = {}) {
  clients += 1;
  const client = mqtt.connect(given.url, {
    protocolVersion: version,
    protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
    clientId: `js${version}-${given.run}-${clients}`,
    clean: true,
    reconnectPeriod: 0,
    connectTimeout: 10_000,
    ...given.tls,
    ...options,
  });
  scope.later(() => client.end(true));
  client.inbox = new Inbox();
  client.on('message', (topic, payload, packet) => {
    client.inbox.put({ topic, payload, qos: packet.qos, retain: packet.retain });
  });
  client.connack = await new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.once('error', reject);
    client.once('close', () => reject(new Error('closed before CONNACK')));
  });
  client.on('error', (error) => console.error(`client error: ${error.message}`));
  return client;
}

const text = ({ topic, payload, qos, retain }, strip) => ({
  topic: topic.slice(strip.length + 1),
  payload: payload.toString(),
  qos,
  retain,
});

async function roundTrip(scope, version, label, qos) {
  const base = `${given.run}/${label}`;
  const client = await connect(scope, version);
  const granted = await client.subscribeAsync(`${base}/echo`, { qos });
  await client.publishAsync(`${base}/echo`, `hello at ${qos}`, { qos });
  const [message] = await client.inbox.first(1);
  const wanted = { topic: 'echo', payload: `hello at ${qos}`, qos: Math.min(qos, maxQos), retain: false };
  expect('message', text(message, base), wanted);
  return { granted: granted[0].qos, message: wanted };
}

async function retained(scope, version, label) {
  const base = `${given.run}/${label}`;
  const writer = await connect(scope, version);
  await writer.publishAsync(`${base}/state`, 'on', { qos: 1, retain: true });
  const reader = await connect(scope, version);
  await reader.subscribeAsync(`${base}/state`, { qos: 1 });
  const [message] = await reader.inbox.first(1);
  const wanted = { topic: 'state', payload: 'on', qos: 1, retain: true };
  expect('message', text(message, base), wanted);
  await writer.publishAsync(`${base}/state`, '', { qos: 1, retain: true });
  return wanted;
}

async function will(scope, version, label) {
  const base = `${given.run}/${label}`;
  const watcher = await connect(scope, version);
  await watcher.subscribeAsync(`${base}/gone`, { qos: 1 });
  const doomed = await connect(scope, version, { will: { topic: `${base}/gone`, payload: 'cut', qos: 1, retain: false } });
  // The socket ends without DISCONNECT and without a Close frame.
  doomed.stream.destroy();
  const [message] = await watcher.inbox.first(1);
  const wanted = { topic: 'gone', payload: 'cut', qos: 1, retain: false };
  expect('will', text(message, base), wanted);
  return wanted;
}

async function noWillAfterDisconnect(scope, version, label) {
  const base = `${given.run}/${label}`;
  const watcher = await connect(scope, version);
  await watcher.subscribeAsync(`${base}/#`, { qos: 1 });
  const polite = await connect(scope, version, { will: { topic: `${base}/gone`, payload: 'cut', qos: 1, retain: false } });
  await polite.endAsync();
  await watcher.publishAsync(`${base}/last`, 'sentinel', { qos: 1 });
  const [message] = await watcher.inbox.first(1);
  expect('first message', message.payload.toString(), 'sentinel');
  return 'no will';
}

async function persistentSession(scope, version, label) {
  const base = `${given.run}/${label}`;
  const options = { clientId: `keep${version}-${given.run}`, clean: false };
  if (version === 5) options.properties = { sessionExpiryInterval: 300 };
  const before = await connect(scope, version, options);
  await before.subscribeAsync(`${base}/queue`, { qos: 1 });
  await before.endAsync();
  const writer = await connect(scope, version);
  for (const word of ['one', 'two', 'three']) await writer.publishAsync(`${base}/queue`, word, { qos: 1 });
  const after = await connect(scope, version, options);
  const queued = (await after.inbox.first(3)).map((message) => message.payload.toString());
  expect('queued messages', queued, ['one', 'two', 'three']);
  await after.endAsync();
  await connect(scope, version, { clientId: options.clientId, clean: true });
  return { before: before.connack.sessionPresent, after: after.connack.sessionPresent, queued };
}

async function wildcards(scope, version, label) {
  const base = `${given.run}/${label}`;
  const client = await connect(scope, version);
  await client.subscribeAsync(`${base}/+/temperature`, { qos: 1 });
  for (const topic of ['kitchen/humidity', 'kitchen/temperature', 'a/b/temperature', 'cellar/temperature']) {
    await client.publishAsync(`${base}/${topic}`, topic, { qos: 1 });
  }
  await client.unsubscribeAsync(`${base}/+/temperature`);
  await client.subscribeAsync(`${base}/deep/#`, { qos: 1 });
  for (const topic of ['deep/a', 'shallow', 'deep/a/b/c']) await client.publishAsync(`${base}/${topic}`, topic, { qos: 1 });
  const seen = (await client.inbox.first(4)).map((message) => message.payload.toString());
  expect('topics', seen, ['kitchen/temperature', 'cellar/temperature', 'deep/a', 'deep/a/b/c']);
  return seen;
}

async function unsubscribe(scope, version, label) {
  const base = `${given.run}/${label}`;
  const client = await connect(scope, version);
  await client.subscribeAsync([`${base}/left`, `${base}/kept`], { qos: 1 });
  await client.publishAsync(`${base}/left`, 'heard', { qos: 1 });
  await client.inbox.first(1);
  await client.unsubscribeAsync(`${base}/left`);
  await client.publishAsync(`${base}/left`, 'unheard', { qos: 1 });
  await client.publishAsync(`${base}/kept`, 'sentinel', { qos: 1 });
  const seen = (await client.inbox.first(2)).map((message) => message.payload.toString());
  expect('messages', seen, ['heard', 'sentinel']);
  return seen;
}

async function binary(scope, version, label, length) {
  const topic = `${given.run}/${label}/blob`;
  const client = await connect(scope, version);
  await client.subscribeAsync(topic, { qos: 1 });
  const payload = binaryPayload(length);
  await client.publishAsync(topic, payload, { qos: 1 });
  const [message] = await client.inbox.first(1);
  expect('length', message.payload.length, length);
  expect('hash', sha256(message.payload), sha256(payload));
  return { length, sha256: sha256(payload) };
}

async function refused(scope, version) {
  try {
    await connect(scope, version, { username: 'client', password: 'not this' });
  } catch (error) {
    if (error.code === undefined) throw error;
    return { code: error.code, message: error.message };
  }
  throw new Error('a wrong password was let in');
}

// Nothing lost, nothing doubled, nothing out of order.
async function burst(scope, version, label, qos) {
  const topic = `${given.run}/${label}/burst`;
  const client = await connect(scope, version);
  await client.subscribeAsync(topic, { qos });
  for (let n = 0; n < BURST; n += 1) client.publish(topic, String(n), { qos });
  const messages = await client.inbox.first(BURST);
  messages.forEach((message, n) => expect('place in the order', Number(message.payload.toString()), n));
  return { count: client.inbox.items.length };
}

async function keepalive(scope, version) {
  // A machine that is held up for a second must not end it.
  const client = await connect(scope, version, { keepalive: 2 });
  const pongs = new Inbox();
  client.on('packetreceive', (packet) => packet.cmd === 'pingresp' && pongs.put(packet.cmd));
  await pongs.first(3);
  expect('still connected', client.connected, true);
  return { pongs: 3 };
}

for (const version of given.versions.split(',').map(Number)) {
  const name = NAMES[version];
  for (const qos of [0, 1, 2]) {
    await suite.case(`${name} qos ${qos}`, (scope) => roundTrip(scope, version, `${version}/qos${qos}`, qos));
  }
  await suite.case(`${name} retained`, (scope) => retained(scope, version, `${version}/retained`));
  await suite.case(`${name} will on a cut connection`, (scope) => will(scope, version, `${version}/will`));
  await suite.case(`${name} no will after DISCONNECT`, (scope) => noWillAfterDisconnect(scope, version, `${version}/polite`));
  await suite.case(`${name} persistent session`, (scope) => persistentSession(scope, version, `${version}/keep`));
  await suite.case(`${name} wildcards`, (scope) => wildcards(scope, version, `${version}/wild`));
  await suite.case(`${name} unsubscribe`, (scope) => unsubscribe(scope, version, `${version}/unsubscribe`));
  await suite.case(`${name} binary`, (scope) => binary(scope, version, `${version}/binary`, Number(given.binary)));
  await suite.case(`${name} wrong password`, (scope) => refused(scope, version));
  await suite.case(`${name} burst at qos 0`, (scope) => burst(scope, version, `${version}/burst0`, 0));
  await suite.case(`${name} burst at qos 1`, (scope) => burst(scope, version, `${version}/burst1`, 1));
  await suite.case(`${name} keepalive`, (scope) => keepalive(scope, version));
  if (given.large) {
    await suite.large(`${name} 64 MB binary`, (scope) => binary(scope, version, `${version}/64mb`, 64 * MEGABYTE));
  }
}
suite.end();
