// Paho JS as a browser sees it: npm's ws stands in for the browser's WebSocket and trusts the given CA.

import { createRequire } from 'node:module';

import WebSocket from 'ws';

import { Inbox } from './suite.mjs';

let tls = {};
let latest;

// Keeps the socket it made: a browser hides it, a test must be able to cut it.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, tls);
    latest = this;
    // Paho says "Socket error:undefined" and keeps the reason to itself.
    this.on('error', (error) => console.error(`socket: ${error.message}`));
  }
};
// Paho's global object is the window it was written for.
globalThis.window ??= globalThis;

export const Paho = createRequire(import.meta.url)('paho-mqtt');

// A connected client with `inbox`, `subscribed(topic, qos)` and `ended`; rejects with Paho's own refusal.
export async function connectPaho(scope, given, id, options) {
  tls = given.tls;
  const client = new Paho.Client(given.url, id);
  client.inbox = new Inbox();
  client.onMessageArrived = (message) => client.inbox.put(message);
  client.ended = new Promise((resolve) => (client.onConnectionLost = resolve));
  await new Promise((resolve, reject) => {
    client.connect({
      timeout: 10,
      cleanSession: true,
      mqttVersionExplicit: true,
      ...options,
      onSuccess: resolve,
      onFailure: reject,
    });
  });
  client.socket = latest;
  scope.later(() => client.socket.terminate());
  client.subscribed = (topic, qos) =>
    new Promise((resolve, reject) => {
      // Paho gives the granted QoS as a byte array of one.
      client.subscribe(topic, { qos, onSuccess: ({ grantedQos }) => resolve(grantedQos[0] ?? grantedQos), onFailure: reject });
    });
  return client;
}
