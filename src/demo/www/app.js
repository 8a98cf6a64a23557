// The demo page: an MQTT client in the browser that says what the gateway says. Needs mqtt.min.js (global `mqtt`).
// It talks to its own host only, and works under a Content-Security-Policy without inline script or style.
'use strict';

const MQTT_PATH = '/mqtt';
const RTT_PREFIX = 'tidegate/demo/rtt/';
const RTT_EVERY_MS = 1000;
const RTT_LOST_AFTER_MS = 5000;
const RTT_WINDOW = 60; // samples shown and counted: one minute
const MESSAGES_KEPT = 100;
const EVENTS_KEPT = 50;
const PAYLOAD_SHOWN = 600; // bytes
const CONNECT_TIMEOUT_MS = 20000;
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const FAULT_PATIENCE_MS = 15000;

const $ = (id) => document.getElementById(id);

// What the codes mean, in one sentence each

const CLOSE_CODES = {
  1000: ['Closed', 'The session ended in good order.'],
  1001: ['Going away', 'The gateway is being stopped or replaced and sent everyone away in good order.'],
  1002: ['Protocol error', 'The gateway received something that is not allowed by WebSocket or MQTT.'],
  1003: ['Unsupported data', 'MQTT travels in binary frames; the gateway takes no text frames.'],
  1005: ['Closed', 'The connection was closed without a reason.'],
  1006: ['Connection lost', 'The connection broke without a word: the network, a proxy in between, or the other end died.'],
  1007: ['Bad text', 'The gateway received text that is not UTF-8.'],
  1008: ['Refused by a rule', 'A rule of the gateway forbids this client or what it did.'],
  1009: ['Too big', 'A message was larger than the gateway lets pass.'],
  1010: ['Extension missing', 'The other end insists on a WebSocket extension.'],
  1011: ['Broker lost', 'The broker behind the gateway went away or failed.'],
  1012: ['Restarting', 'The gateway is restarting; coming back in a moment will do.'],
  1013: ['Try again later', 'No broker could take the session just now.'],
  1014: ['Bad gateway', 'A server behind the gateway gave an answer that makes no sense.'],
  1015: ['TLS failed', 'The secure connection could not be made.'],
};

const NEVER_OPENED = ['No connection',
  'No WebSocket came about: nothing listens there, the certificate was not accepted, or the answer was an HTTP error. Browsers do not tell a page which.'];

const CONNACK_3 = {
  1: ['Version refused', 'The broker does not speak this version of MQTT.'],
  2: ['Client ID refused', 'The broker does not accept this client ID.'],
  3: ['Server unavailable', 'No broker took the session.'],
  4: ['Wrong user name or password', 'The broker did not accept the user name or the password.'],
  5: ['Not authorised', 'The rules of the gateway or of the broker do not let this client in.'],
};

const REASONS_5 = {
  0x00: ['Disconnected', 'The session ended in good order.'],
  0x04: ['Disconnected', 'The session ended and its will is published.'],
  0x80: ['Unspecified error', 'The other end does not say what is wrong.'],
  0x81: ['Malformed packet', 'A packet could not be understood.'],
  0x82: ['Protocol error', 'A packet came that is not allowed at this point.'],
  0x83: ['Refused', 'The broker has a reason of its own to refuse this.'],
  0x84: ['Version refused', 'The broker does not speak this version of MQTT.'],
  0x85: ['Client ID refused', 'The broker does not accept this client ID.'],
  0x86: ['Wrong user name or password', 'The broker did not accept the user name or the password.'],
  0x87: ['Not authorised', 'The rules of the gateway or of the broker do not let this client in.'],
  0x88: ['Server unavailable', 'No broker took the session.'],
  0x89: ['Server busy', 'The broker has too much to do; try again later.'],
  0x8a: ['Banned', 'This client has been banned.'],
  0x8b: ['Shutting down', 'The server is shutting down; another one will take the session.'],
  0x8c: ['Bad sign-in method', 'The way of signing in is not supported.'],
  0x8d: ['Keep-alive timeout', 'Nothing was heard from this client for too long.'],
  0x8e: ['Taken over', 'Another client connected with the same client ID.'],
  0x8f: ['Topic filter refused', 'The topic filter is not accepted.'],
  0x90: ['Topic refused', 'The topic is not accepted.'],
  0x91: ['Packet ID in use', 'The packet identifier is in use already.'],
  0x93: ['Too many at once', 'More messages were under way than the receive maximum allows.'],
  0x94: ['Topic alias refused', 'The topic alias is not valid.'],
  0x95: ['Packet too large', 'The packet was larger than the other end accepts.'],
  0x96: ['Too fast', 'Messages came faster than allowed.'],
  0x97: ['Quota exceeded', 'A limit has been reached.'],
  0x98: ['Ended by the operator', 'An operator ended the session.'],
  0x99: ['Payload refused', 'The payload does not have the announced format.'],
  0x9a: ['No retained messages', 'The broker does not keep retained messages.'],
  0x9b: ['QoS refused', 'The broker does not support this QoS.'],
  0x9c: ['Use another server', 'The session is asked to continue on another server.'],
  0x9d: ['Server moved', 'The server has moved for good.'],
  0x9e: ['No shared subscriptions', 'The broker does not support shared subscriptions.'],
  0x9f: ['Connecting too often', 'Connections came faster than allowed.'],
  0xa0: ['Time is up', 'The longest time a connection may last is over.'],
  0xa1: ['No subscription IDs', 'The broker does not support subscription identifiers.'],
  0xa2: ['No wildcards', 'The broker does not support wildcard subscriptions.'],
};

const hexCode = (code) => `0x${code.toString(16).toUpperCase().padStart(2, '0')}`;

function meaningOfClose(code, opened) {
  if (!opened && code === 1006) return NEVER_OPENED;
  return CLOSE_CODES[code] || ['Closed', 'The other end closed with a code of its own.'];
}

function meaningOfConnack(version, code) {
  const table = version === 5 ? REASONS_5 : CONNACK_3;
  return table[code] || ['Refused', 'The connection was refused with a code this page does not know.'];
}

const meaningOfReason = (code) => REASONS_5[code] || ['Ended', 'The session was ended with a code this page does not know.'];

// Small tools

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Writes only what is new, so that a screen reader does not hear the same again with every attempt.
function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function address(path) {
  return `${location.protocol === 'http:' ? 'ws' : 'wss'}://${location.host}${path}`;
}

function newClientId() {
  const random = crypto.getRandomValues(new Uint8Array(4));
  return `demo-${Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function duration(seconds) {
  const two = (value) => String(value).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(seconds % 60)}`;
}

function timeOfDay() {
  const now = new Date();
  const part = (value, digits) => String(value).padStart(digits, '0');
  return `${part(now.getHours(), 2)}:${part(now.getMinutes(), 2)}:${part(now.getSeconds(), 2)}.${part(now.getMilliseconds(), 3)}`;
}

// Text if the bytes are text that can be shown, hex otherwise.
function readable(bytes) {
  const cut = bytes.subarray(0, PAYLOAD_SHOWN);
  const more = bytes.length > cut.length ? ` … ${size(bytes.length)} in all` : '';
  if (bytes.length === 0) return { kind: 'none', text: 'empty' };
  try {
    // With `stream` a character cut in two at the end is left out instead of being an error.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(cut, { stream: more !== '' });
      if (!/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text)) return { kind: 'text', text: text + more };
  } catch {
    // Not UTF-8: shown as hex below.
  }
  const hex = Array.from(cut, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return { kind: 'hex', text: hex + more };
}

function bytesOfHex(text) {
  const digits = text.replace(/[\s:,]|0x/gi, '');
  if (digits.length % 2 || /[^0-9a-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) || [], (pair) => parseInt(pair, 16));
}

function keep(list, most) {
  while (list.children.length > most) list.lastElementChild.remove();
}

// What the gateway said: a list, newest first

function event(list, tone, code, title, text, quote) {
  const item = element('li', tone);
  const head = element('div', 'line-head');
  const tag = element('span', 'code', code);
  const meta = element('span', 'meta');
  meta.append(element('time', '', timeOfDay()));
  head.append(tag, meta);
  const line = element('p');
  line.append(element('strong', '', title), ` – ${text}`);
  if (quote) line.append(' It says: ', element('q', '', quote));
  item.append(head, line);
  list.prepend(item);
  keep(list, EVENTS_KEPT);
}

const say = (tone, code, title, text, quote) => event($('said'), tone, code, title, text, quote);

// The session

const session = {
  client: null,
  attempt: null, // what this connection has told so far
  wanted: true, // the visitor wants to be connected
  retries: 0,
  retryAt: 0,
  up: false,
  since: 0, // when this session, or the last one that was lost, began
  clientId: newClientId(),
  filters: new Map([['tidegate/demo/#', 2]]),
  sent: 0,
  received: 0,
  bytesOut: 0,
  bytesIn: 0,
  reconnects: 0,
};

const STATES = { connecting: 'Connecting', connected: 'Connected', reconnecting: 'Reconnecting', offline: 'Offline' };

function show(state) {
  write('state', STATES[state]);
  document.body.dataset.state = state;
  document.title = `${STATES[state]} · Tidegate demo`;
  const connected = state === 'connected';
  $('publish-button').disabled = !connected;
  $('subscribe-button').disabled = !connected;
  $('toggle').textContent = session.wanted ? 'Disconnect' : 'Connect';
}

function version() {
  return Number(document.querySelector('input[name="version"]:checked').value);
}

function connect() {
  session.retryAt = 0;
  $('countdown').textContent = '';
  const attempt = { version: version(), opened: false, connack: null, disconnect: null, error: '', byUs: false };
  session.attempt = attempt;
  show(session.retries || session.since ? 'reconnecting' : 'connecting');

  const client = mqtt.connect(address(MQTT_PATH), {
    clientId: session.clientId,
    protocolVersion: attempt.version,
    username: $('username').value || undefined,
    password: $('password').value || undefined,
    keepalive: Number($('keepalive').value) || 0,
    clean: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    reconnectPeriod: 0, // this page shows a countdown and tries again by itself
    resubscribe: false,
    queueQoSZero: false,
    timerVariant: 'native', // the other one needs a blob: worker, which a strict policy forbids
    createWebsocket: (_url, protocols) => watched(attempt, protocols),
  });
  session.client = client;

  client.on('error', (error) => { attempt.error = error.message || String(error); });
  client.on('packetreceive', (packet) => {
    if (packet.cmd === 'connack') connackCame(client, attempt, packet);
    if (packet.cmd === 'disconnect' && attempt.version === 5) disconnectCame(attempt, packet);
  });
  client.on('connect', () => connected(client, attempt));
  client.on('message', (topic, payload, packet) => received(topic, payload, packet));
}

// The WebSocket under MQTT.js: its close code is what the gateway says last.
function watched(attempt, protocols) {
  const socket = new WebSocket(address(MQTT_PATH), protocols);
  const send = socket.send.bind(socket);
  socket.send = (data) => {
    if (socket.readyState !== WebSocket.OPEN) return; // MQTT.js may still be writing when the other end has closed
    session.bytesOut += data.byteLength ?? data.length;
    send(data);
  };
  socket.addEventListener('open', () => { attempt.opened = true; });
  socket.addEventListener('message', ({ data }) => { session.bytesIn += data.byteLength ?? data.length; });
  socket.addEventListener('close', ({ code, reason }) => closed(attempt, code, reason));
  return socket;
}

function connackCame(client, attempt, packet) {
  const code = attempt.version === 5 ? packet.reasonCode : packet.returnCode;
  const properties = packet.properties || {};
  attempt.connack = { code, text: properties.reasonString };
  if (code === 0) {
    const told = [
      packet.sessionPresent && 'session resumed',
      properties.serverKeepAlive !== undefined && `keep-alive ${properties.serverKeepAlive} s`,
      properties.receiveMaximum && `receive maximum ${properties.receiveMaximum}`,
      properties.maximumPacketSize && `packets up to ${size(properties.maximumPacketSize)}`,
    ].filter(Boolean).join(', ');
    say('good', 'CONNACK 0', 'Welcome', `A broker took the session${told ? ` (${told})` : ''}.`);
    return;
  }
  const [title, text] = meaningOfConnack(attempt.version, code);
  say('bad', `CONNACK ${attempt.version === 5 ? hexCode(code) : code}`, title, text, properties.reasonString);
  // A server closes after a refusal; one that forgets must not leave this page hanging.
  setTimeout(() => client.end(true), 2000);
}

function disconnectCame(attempt, packet) {
  const code = packet.reasonCode || 0;
  const text = packet.properties && packet.properties.reasonString;
  attempt.disconnect = { code, text };
  const [title, meaning] = meaningOfReason(code);
  say(code < 0x80 ? '' : 'bad', `DISCONNECT ${hexCode(code)}`, title, meaning, text);
}

function connected(client, attempt) {
  if (session.attempt !== attempt) return;
  if (session.since) session.reconnects += 1;
  session.retries = 0;
  session.since = Date.now();
  session.up = true;
  $('failure').hidden = true;
  show('connected');
  for (const [filter, qos] of session.filters) ask(filter, qos);
  client.subscribe(RTT_PREFIX + session.clientId, { qos: 0 }, (error) => { roundTrips.ready = !error && session.client === client; });
  refresh();
}

function closed(attempt, code, reason) {
  if (session.attempt !== attempt) return;
  const byUs = attempt.byUs || !session.wanted;
  session.up = false;
  roundTrips.reset();
  if (session.client) session.client.end(true);
  session.client = null;
  const [title, text] = meaningOfClose(code, attempt.opened);
  say(byUs || code === 1000 ? '' : 'bad', attempt.opened ? `Close ${code}` : 'No WebSocket', title,
    byUs ? 'This page closed the session.' : text, reason);
  if (byUs) {
    $('failure').hidden = true;
    show('offline');
    refresh();
    return;
  }
  fail(attempt, code, reason);
}

// The most telling thing goes first: CONNACK, then DISCONNECT, then the close code.
function fail(attempt, code, reason) {
  const refused = attempt.connack && attempt.connack.code !== 0;
  const [title, text] = refused ? meaningOfConnack(attempt.version, attempt.connack.code)
    : attempt.disconnect && attempt.disconnect.code >= 0x80 ? meaningOfReason(attempt.disconnect.code)
      : meaningOfClose(code, attempt.opened);
  const timedOut = !refused && !attempt.connack && attempt.opened && /timeout/i.test(attempt.error);
  const quote = (refused && attempt.connack.text) || (attempt.disconnect && attempt.disconnect.text) || reason;
  write('failure-title', timedOut ? 'No answer' : title);
  write('failure-text', timedOut ? 'The WebSocket opened but no CONNACK came in time.' : quote ? `${text} It says: “${quote}”` : text);
  const codes = [
    refused && `CONNACK ${attempt.version === 5 ? hexCode(attempt.connack.code) : attempt.connack.code}`,
    attempt.disconnect && `DISCONNECT ${hexCode(attempt.disconnect.code)}`,
    attempt.opened ? `Close ${code}` : 'no WebSocket',
  ].filter(Boolean);
  $('failure-codes').replaceChildren(...codes.map((each) => element('span', 'code', each)));
  $('failure').hidden = false;

  const wait = RETRY_MS[Math.min(session.retries, RETRY_MS.length - 1)];
  session.retries += 1;
  session.retryAt = Date.now() + wait;
  show('reconnecting');
  refresh();
}

function disconnect() {
  session.wanted = false;
  session.retryAt = 0;
  session.retries = 0;
  session.since = 0;
  if (session.client) {
    session.attempt.byUs = true;
    session.client.end(!session.up);
  } else {
    $('failure').hidden = true;
  }
  if (!session.up) show('offline');
}

// Leaves what is there, if anything, and starts anew.
function restart() {
  const old = session.client;
  session.wanted = true;
  session.retries = 0;
  session.since = 0;
  session.up = false;
  session.attempt = null; // what the old connection still has to say is of no interest
  session.client = null;
  roundTrips.reset();
  if (old) old.end();
  connect();
}

// Subscriptions

function ask(filter, qos) {
  const { client } = session;
  client.subscribe(filter, { qos }, (error, granted) => {
    const code = granted && granted[0] ? granted[0].qos : undefined;
    if (error || code >= 0x80) {
      session.filters.delete(filter);
      const why = code >= 0x80 ? meaningOfReason(code)[1] : error.message;
      answer('subscribe-answer', `${filter} was refused: ${why}`, 'bad');
    } else {
      answer('subscribe-answer', code === qos ? '' : `${filter}: the broker grants QoS ${code}.`);
    }
    showFilters();
  });
  showFilters();
}

function showFilters() {
  $('subscriptions').replaceChildren(...Array.from(session.filters, ([filter, qos]) => {
    const chip = element('li');
    const drop = element('button', '', '×');
    drop.type = 'button';
    drop.setAttribute('aria-label', `Unsubscribe from ${filter}`);
    drop.addEventListener('click', () => {
      session.filters.delete(filter);
      if (session.up) session.client.unsubscribe(filter);
      showFilters();
      $('filter').focus();
    });
    chip.append(element('code', '', filter), element('span', 'quiet', `QoS ${qos}`), drop);
    return chip;
  }));
}

function answer(id, text, tone = '') {
  $(id).textContent = text;
  $(id).className = `answer ${tone}`;
}

// Publishing and receiving

function publish() {
  const topic = $('topic').value;
  const form = new FormData($('publish'));
  const qos = Number(form.get('qos'));
  const payload = form.get('form') === 'hex' ? bytesOfHex($('payload').value) : new TextEncoder().encode($('payload').value);
  if (/[+#]/.test(topic)) return answer('publish-answer', 'A topic to publish to has no wildcards (+ or #).', 'bad');
  if (!payload) return answer('publish-answer', 'That is not hex: write pairs of 0-9 and a-f.', 'bad');
  const from = performance.now();
  const { client } = session;
  client.publish(topic, mqtt.Buffer ? mqtt.Buffer.from(payload) : payload, { qos, retain: $('retain').checked }, (error, packet) => {
    const code = packet && packet.reasonCode;
    if (error) {
      answer('publish-answer', `Not published: ${code >= 0x80 ? meaningOfReason(code)[1] : error.message}`, 'bad');
      return;
    }
    const took = `${(performance.now() - from).toFixed(1)} ms`;
    answer('publish-answer', qos === 0 ? 'Sent.' : `Taken by the broker after ${took} (QoS ${qos}).`);
  });
  session.sent += 1;
  refresh();
  return undefined;
}

const arrivals = [];

function received(topic, payload, packet) {
  if (topic.startsWith(RTT_PREFIX)) {
    if (topic === RTT_PREFIX + session.clientId) roundTrips.echo(payload.toString());
    return;
  }
  session.received += 1;
  arrivals.push({ topic, payload, qos: packet.qos, retain: packet.retain, at: timeOfDay() });
  if (arrivals.length > MESSAGES_KEPT) arrivals.shift();
  if (arrivals.length === 1) requestAnimationFrame(showArrivals);
}

function showArrivals() {
  for (const { topic, payload, qos, retain, at } of arrivals.splice(0)) {
    const item = element('li');
    item.dataset.topic = topic;
    const head = element('div', 'line-head');
    const meta = element('span', 'meta');
    if (retain) meta.append(element('span', 'tag', 'retained'));
    meta.append(element('span', '', `QoS ${qos}`), element('span', '', size(payload.length)), element('time', '', at));
    head.append(element('code', '', topic), meta);
    const { kind, text } = readable(payload);
    item.append(head, element('p', `payload ${kind}`, text));
    $('messages').prepend(item);
  }
  keep($('messages'), MESSAGES_KEPT);
  refresh();
}

// Round trips

const roundTrips = {
  samples: [], // milliseconds, or null for one that never came back
  waiting: new Map(),
  next: 0,
  ready: false, // the echo is subscribed to

  reset() {
    this.ready = false;
    this.waiting.clear();
  },

  ping() {
    const now = performance.now();
    for (const [number, from] of this.waiting) {
      if (now - from > RTT_LOST_AFTER_MS) {
        this.waiting.delete(number);
        this.add(null);
      }
    }
    if (!this.ready || document.hidden) return;
    this.next += 1;
    this.waiting.set(String(this.next), now);
    session.client.publish(RTT_PREFIX + session.clientId, String(this.next), { qos: 0 });
  },

  echo(number) {
    const from = this.waiting.get(number);
    if (from === undefined) return;
    this.waiting.delete(number);
    this.add(performance.now() - from);
  },

  add(sample) {
    this.samples.push(sample);
    if (this.samples.length > RTT_WINDOW) this.samples.shift();
    this.draw();
  },

  figures() {
    const sorted = this.samples.filter((each) => each !== null).sort((a, b) => a - b);
    const at = (share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
    const last = this.samples[this.samples.length - 1];
    return { last, median: at(0.5), p95: at(0.95), most: sorted[sorted.length - 1] };
  },

  draw() {
    const { last, median, p95, most } = this.figures();
    const text = (value) => (value === null ? 'lost' : value === undefined ? '–' : value.toFixed(value < 100 ? 1 : 0));
    $('rtt-last').textContent = text(last);
    $('rtt-median').textContent = text(median);
    $('rtt-p95').textContent = text(p95);
    drawChart(this.samples, most, median === undefined ? 'No round trip measured yet'
      : `Round-trip time of the last minute in milliseconds: last ${text(last)}, median ${text(median)}, 95th percentile ${text(p95)}`);
  },
};

function svg(tag, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The next 1, 2 or 5 times a power of ten.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function drawChart(samples, most, title) {
  const chart = $('chart');
  const width = chart.clientWidth || 320;
  const height = chart.clientHeight || 160;
  const left = 46;
  const right = width - 8;
  const top = 10;
  const bottom = height - 24;
  const ceiling = roundUp(Math.max(most || 0, 1) * 1.05);
  const y = (value) => bottom - (value / ceiling) * (bottom - top);
  const x = (index) => right - ((samples.length - 1 - index) / (RTT_WINDOW - 1)) * (right - left);
  const parts = [svg('title', { id: 'chart-title' }, title)];
  for (const value of [0, ceiling / 2, ceiling]) {
    parts.push(svg('line', { class: 'grid', x1: left, x2: right, y1: y(value), y2: y(value) }));
    parts.push(svg('text', { x: left - 6, y: y(value) + 4, 'text-anchor': 'end' }, value === 0 ? '0' : `${value} ms`));
  }
  parts.push(svg('text', { x: left, y: height - 6 }, '60 s ago'));
  parts.push(svg('text', { x: right, y: height - 6, 'text-anchor': 'end' }, 'now'));

  // A lost sample cuts the line and leaves a mark on the axis.
  let run = [];
  const flush = () => {
    if (run.length > 1) {
      const points = run.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(' L');
      parts.push(svg('path', { class: 'area', d: `M${run[0][0].toFixed(1)},${bottom} L${points} L${run[run.length - 1][0].toFixed(1)},${bottom} Z` }));
      parts.push(svg('path', { class: 'line', d: `M${points}` }));
    }
    run = [];
  };
  samples.forEach((value, index) => {
    if (value === null) {
      flush();
      parts.push(svg('line', { class: 'lost', x1: x(index), x2: x(index), y1: bottom - 8, y2: bottom }));
    } else {
      run.push([x(index), y(value)]);
    }
  });
  flush();
  const last = samples[samples.length - 1];
  if (typeof last === 'number') parts.push(svg('circle', { class: 'dot', cx: right, cy: y(last), r: 5 }));
  chart.setAttribute('viewBox', `0 0 ${width} ${height}`);
  chart.replaceChildren(...parts);
}

// Break it: the mistakes clients make, on connections of their own

const MQTT_HELLO = (() => {
  const id = new TextEncoder().encode(`demo-break-${newClientId().slice(5)}`);
  const body = [0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 30, 0, id.length, ...id];
  return Uint8Array.from([0x10, body.length, ...body]);
})();

const FAULTS = [
  { name: 'Send a text frame', about: 'MQTT is binary', run: (report) => raw(report, { send: ['hello, broker?'] }) },
  { name: 'Send something that is not MQTT', about: 'an HTTP request in a frame', run: (report) => raw(report, { send: [new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n')] }) },
  { name: 'Publish before CONNECT', about: 'out of turn', run: (report) => raw(report, { send: [Uint8Array.from([0x30, 5, 0, 1, 0x61, 0x68, 0x69])] }) },
  { name: 'CONNECT twice', about: 'once is enough', run: (report) => raw(report, { send: [MQTT_HELLO, MQTT_HELLO] }) },
  { name: 'Announce a 256 MB CONNECT', about: 'and see what is reserved for it', run: (report) => raw(report, { send: [Uint8Array.from([0x10, 0xff, 0xff, 0xff, 0x7f])] }) },
  { name: 'Open and stay silent', about: 'takes some seconds', run: (report) => raw(report, { send: [] }) },
  { name: 'Ask for no subprotocol', about: 'as mini programs do: not a fault', run: (report) => raw(report, { send: [MQTT_HELLO], protocols: [], enough: true }) },
  { name: 'Knock at the wrong path', about: `${MQTT_PATH}-typo`, run: (report) => raw(report, { send: [], path: `${MQTT_PATH}-typo`, thenGet: true }) },
  { name: 'Open the MQTT path as a page', about: `GET ${MQTT_PATH}`, run: (report) => plain(report, MQTT_PATH) },
];

function raw(report, { send, protocols = ['mqtt'], path = MQTT_PATH, thenGet = false, enough = false }) {
  return new Promise((done) => {
    const from = performance.now();
    const socket = new WebSocket(address(path), protocols);
    socket.binaryType = 'arraybuffer';
    let opened = false;
    let over = false;
    const finish = () => { over = true; clearTimeout(patience); socket.close(); done(); };
    const patience = setTimeout(() => {
      report('', 'Still open', 'No reaction', `Nothing came within ${FAULT_PATIENCE_MS / 1000} s.`);
      finish();
    }, FAULT_PATIENCE_MS);
    socket.addEventListener('open', () => {
      opened = true;
      for (const each of send) socket.send(each);
    });
    socket.addEventListener('message', ({ data }) => {
      const packet = new Uint8Array(data);
      if (over || packet[0] !== 0x20) return;
      const [title, text] = packet[3] === 0 ? ['Accepted', 'A broker took the session.'] : meaningOfConnack(4, packet[3]);
      report(packet[3] === 0 ? 'good' : 'bad', `CONNACK ${packet[3]}`, title, text);
      if (enough) finish();
    });
    socket.addEventListener('close', async ({ code, reason }) => {
      if (over) return;
      over = true;
      clearTimeout(patience);
      const [title, text] = meaningOfClose(code, opened);
      const after = `After ${((performance.now() - from) / 1000).toFixed(1)} s. `;
      report('bad', opened ? `Close ${code}` : 'No WebSocket', title, opened ? after + text : text, reason);
      if (thenGet && !opened) await plain(report, path);
      done();
    });
  });
}

// What a person would read of an answer, be it a sentence or a page.
function words(answer) {
  const { body } = new DOMParser().parseFromString(answer, 'text/html');
  for (const each of body.querySelectorAll('style, script')) each.remove();
  return body.textContent.replace(/\s+/g, ' ').trim();
}

async function plain(report, path) {
  try {
    const response = await fetch(path, { cache: 'no-store' });
    const text = words(await response.text());
    report(response.ok ? 'good' : 'bad', `HTTP ${response.status}`, response.statusText || 'Answer', `The answer to GET ${path}.`, text.slice(0, 300));
  } catch (error) {
    report('bad', 'No answer', 'Failed', `GET ${path}: ${error.message}`);
  }
}

function showFaults() {
  $('faults').replaceChildren(...FAULTS.map(({ name, about, run }) => {
    const button = element('button', 'plain', name);
    button.type = 'button';
    button.append(element('small', '', about));
    button.addEventListener('click', async () => {
      if (button.ariaDisabled === 'true') return; // not `disabled`: that would throw the keyboard's place away
      button.ariaDisabled = 'true';
      await run((tone, code, title, text, quote) => event($('answers'), tone, code, `${name}: ${title}`, text, quote));
      button.ariaDisabled = 'false';
      $('answers').firstElementChild?.scrollIntoView({ block: 'nearest' }); // on a phone it is below the buttons
    });
    return button;
  }));
}

// Wiring

function refresh() {
  $('client-id').textContent = session.clientId;
  $('uptime').textContent = session.up ? duration(Math.floor((Date.now() - session.since) / 1000)) : '–';
  $('sent').textContent = session.sent.toLocaleString('en');
  $('received').textContent = session.received.toLocaleString('en');
  $('bytes-out').textContent = size(session.bytesOut);
  $('bytes-in').textContent = size(session.bytesIn);
  $('reconnects').textContent = session.reconnects;
  const shown = $('messages').children.length;
  $('shown').textContent = shown === MESSAGES_KEPT ? `newest ${shown}` : shown ? String(shown) : '';
  $('empty').hidden = shown > 0;
  $('messages').hidden = shown === 0;
  if (session.retryAt) {
    const left = Math.max(0, Math.ceil((session.retryAt - Date.now()) / 1000));
    $('countdown').textContent = `Trying again in ${left} s`;
  }
}

function tick() {
  if (session.retryAt && Date.now() >= session.retryAt) connect();
  refresh();
}

function start() {
  $('endpoint').textContent = address(MQTT_PATH);
  showFilters();
  showFaults();
  roundTrips.draw();
  refresh();
  setInterval(tick, 250);
  setInterval(() => roundTrips.ping(), RTT_EVERY_MS);
  new ResizeObserver(() => roundTrips.draw()).observe($('chart'));

  $('toggle').addEventListener('click', () => (session.wanted ? disconnect() : restart()));
  $('retry').addEventListener('click', () => { session.retryAt = 0; if (!session.client) connect(); });
  $('version').addEventListener('change', restart);
  $('options').addEventListener('submit', (submitted) => { submitted.preventDefault(); restart(); });
  $('publish').addEventListener('submit', (submitted) => { submitted.preventDefault(); if (session.up) publish(); });
  $('subscribe').addEventListener('submit', (submitted) => {
    submitted.preventDefault();
    const filter = $('filter').value;
    const qos = Number($('filter-qos').value);
    session.filters.set(filter, qos);
    if (session.up) ask(filter, qos);
  });
  $('clear').addEventListener('click', () => { $('messages').replaceChildren(); refresh(); });
  window.addEventListener('online', () => { if (session.retryAt) session.retryAt = Date.now(); });
  connect();
}

start();
