// What every client script shares: its arguments, its one JSON line per case, its deadlines.
//
// A line is {"case": name, "result": value}, and its content depends on nothing but the behaviour seen, so that the run
// through the gateway and the run directly at the broker can be compared line by line. Faults go to stderr.

import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual, parseArgs } from 'node:util';

const CASE_DEADLINE_MS = 30_000;
// 64 MB cross two brokers' queues on a slow machine.
const LARGE_DEADLINE_MS = 180_000;

// Cases whose name does not have this text, or has one of those, are left out.
let only = '';
let without = [];

// Reads the arguments that all scripts understand, and those named in `more`.
export function readArguments(more = {}) {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      ca: { type: 'string' },
      insecure: { type: 'boolean', default: false },
      direct: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      without: { type: 'string', multiple: true, default: [] },
      ...more,
    },
  });
  if (!values.url) throw new Error('--url is missing, for example --url wss://127.0.0.1:8443/mqtt');
  if (!values.direct && !/^(wss|https):/.test(values.url)) {
    throw new Error('the gateway is reached by wss:// or https:// only; --direct allows every scheme');
  }
  const tls = { rejectUnauthorized: !values.insecure };
  if (values.ca) tls.ca = readFileSync(values.ca);
  // Two runs at one broker must not meet each other's retained messages and sessions.
  ({ only, without } = values);
  return { ...values, tls, run: randomBytes(4).toString('hex') };
}

export class Suite {
  #failed = 0;

  // Runs one case; `body` gets a scope whose `later` functions run at the end, whichever way it ends.
  async case(name, body, deadlineMs = CASE_DEADLINE_MS) {
    if (!name.includes(only) || without.some((text) => name.includes(text))) return;
    const endings = [];
    const scope = { later: (ending) => endings.push(ending) };
    try {
      const result = await within(deadlineMs, name, body(scope));
      console.log(JSON.stringify({ case: name, result }));
    } catch (error) {
      this.#failed += 1;
      console.log(JSON.stringify({ case: name, result: 'failed' }));
      console.error(`${name}: ${error?.stack ?? JSON.stringify(error)}`);
    }
    for (const ending of endings.reverse()) {
      try {
        await ending();
      } catch (error) {
        console.error(`${name}: while ending: ${error?.message}`);
      }
    }
  }

  large(name, body) {
    return this.case(name, body, LARGE_DEADLINE_MS);
  }

  // Ends the process: some clients keep timers that would hold it open.
  end() {
    process.exit(this.#failed === 0 ? 0 : 1);
  }
}

// The values given to `put`, waited for by count.
export class Inbox {
  items = [];
  #wake = () => {};

  put(item) {
    this.items.push(item);
    this.#wake();
  }

  async first(count) {
    while (this.items.length < count) await new Promise((resolve) => (this.#wake = resolve));
    return this.items.slice(0, count);
  }
}

export function expect(what, actual, wanted) {
  if (!isDeepStrictEqual(actual, wanted)) {
    throw new Error(`${what}: got ${JSON.stringify(actual)}, wanted ${JSON.stringify(wanted)}`);
  }
}

// Settles as `promise` does, or fails when the deadline passes first.
export function within(ms, what, promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms} ms`)), ms);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

export function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

// The same bytes in every run, every value of a byte among them, no short period.
export function binaryPayload(length) {
  const bytes = Buffer.allocUnsafe(length);
  let state = 0x2545f491;
  for (let at = 0; at < length; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 0xff;
  }
  return bytes;
}
