// Many MQTT.js sessions that send themselves running numbers in QoS 1 until SIGTERM, and then say what came of it.
//
//   node steady.mjs --url wss://127.0.0.1:8443/mqtt --ca ca.pem --sessions 100
//
// "ready" on stderr when each has heard its first number; one JSON line on stdout at the end. A session that ends by
// itself, a number that is missing and one that came twice are each counted: nothing connects again.

import mqtt from 'mqtt';

import { readArguments } from './suite.mjs';

const PERIOD_MS = 200;
const LAST_ANSWERS_MS = 10_000;

const given = readArguments({ sessions: { type: 'string', default: '100' } });
const sessions = Number(given.sessions);
const total = { sessions, dropped: 0, sent: 0, lost: 0, doubled: 0 };
let stopping = false;

function begin(index) {
  const version = index % 2 ? 4 : 5;
  const topic = `steady/${given.run}/${index}`;
  const client = mqtt.connect(given.url, {
    protocolVersion: version,
    clientId: `steady-${given.run}-${index}`,
    reconnectPeriod: 0,
    connectTimeout: 30_000,
    ...given.tls,
  });
  const one = { client, topic, sent: 0, heard: new Map() };
  one.first = new Promise((resolve, reject) => Object.assign(one, { resolve, reject }));
  client.on('message', (_topic, payload) => {
    const number = Number(payload.toString());
    one.heard.set(number, (one.heard.get(number) ?? 0) + 1);
    one.resolve();
  });
  client.on('close', () => {
    if (!stopping) {
      total.dropped += 1;
      console.error(`session ${index} was dropped`);
    }
  });
  client.on('error', one.reject);
  client.on('connect', () => client.subscribe(topic, { qos: 1 }, () => send(one)));
  return one;
}

function send(one) {
  if (stopping) return;
  one.sent += 1;
  one.client.publish(one.topic, String(one.sent), { qos: 1 });
  setTimeout(() => send(one), PERIOD_MS * (0.5 + Math.random()));
}

// All at once would be a storm, which is another test.
const all = [];
for (let index = 0; index < sessions; index += 1) {
  all.push(begin(index));
  if (index % 20 === 19) await all.at(-1).first;
}
await Promise.all(all.map((one) => one.first));
console.error('ready');
await new Promise((resolve) => process.once('SIGTERM', resolve));

stopping = true;
const end = Date.now() + LAST_ANSWERS_MS;
const complete = () => all.every((one) => one.heard.size >= one.sent);
while (!complete() && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
for (const { sent, heard } of all) {
  total.sent += sent;
  total.lost += sent - heard.size;
  for (const times of heard.values()) total.doubled += times - 1;
}
console.log(JSON.stringify(total));
process.exit(0);
