// A WeChat mini program on a phone: it offers no subprotocol and fails when one comes back, it gives up after four
// seconds, and its keepalive is five seconds.
//
//   node mini_program.mjs --url wss://127.0.0.1:8443/mqtt --ca ca.pem

import mqtt from 'mqtt';
import WebSocket from 'ws';

import { binaryPayload, expect, Inbox, readArguments, sha256, Suite } from './suite.mjs';

const CONNECT_TIMEOUT_MS = 4_000;
const KEEPALIVE_SECONDS = 5;

const given = readArguments({ versions: { type: 'string', default: '4' } });
const suite = new Suite();
let clients = 0;

async function connect(scope, version, options = {}) {
  clients += 1;
  let socket;
  const client = mqtt.connect(given.url, {
    protocolVersion: version,
    protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
    clientId: `xcx-${given.run}-${clients}`,
    keepalive: KEEPALIVE_SECONDS,
    connectTimeout: CONNECT_TIMEOUT_MS,
    reconnectPeriod: 0,
    // ws fails by itself, as a phone does, when an answer names a protocol that nobody asked for.
    createWebsocket: (url) => (socket = new WebSocket(url, given.tls)),
    ...options,
  });
  scope.later(() => client.end(true));
  client.inbox = new Inbox();
  client.on('message', (topic, payload, { qos }) => client.inbox.put({ topic, payload, qos }));
  await new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.once('error', reject);
    client.once('close', () => reject(new Error('closed before CONNACK')));
  });
  expect('subprotocol', socket.protocol, '');
  return client;
}

for (const version of given.versions.split(',').map(Number)) {
  await suite.case(`${version} no subprotocol asked, none answered`, async (scope) => {
    const client = await connect(scope, version);
    return { connected: client.connected };
  });

  await suite.case(`${version} binary at qos 2`, async (scope) => {
    const topic = `${given.run}/abc`;
    const client = await connect(scope, version, { clean: false });
    const [{ qos: granted }] = await client.subscribeAsync(topic, { qos: 2 });
    const payload = Buffer.concat([Buffer.from('010300000002c40b', 'hex'), binaryPayload(4096)]);
    await client.publishAsync(topic, payload, { qos: 2 });
    const [got] = await client.inbox.first(1);
    expect('hash', sha256(got.payload), sha256(payload));
    return { granted, qos: got.qos, sha256: sha256(got.payload) };
  });

  await suite.case(`${version} stays while nothing is said for more than two keepalives`, async (scope) => {
    const topic = `${given.run}/idle`;
    const client = await connect(scope, version);
    await client.subscribeAsync(topic, { qos: 1 });
    const pongs = new Inbox();
    client.on('packetreceive', (packet) => packet.cmd === 'pingresp' && pongs.put(packet.cmd));
    await pongs.first(3);
    await client.publishAsync(topic, 'still here', { qos: 1 });
    const [got] = await client.inbox.first(1);
    return { pongs: 3, payload: got.payload.toString() };
  });
}
suite.end();
