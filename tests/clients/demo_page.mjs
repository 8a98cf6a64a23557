// Opens the demo page in Chromium and uses it as a visitor does: connect, publish, receive, read the round-trip time,
// make the mistakes of "Break it". Promises: asks only the host of the given address; ends with 1 if anything is wrong.
//
//   node demo_page.mjs https://127.0.0.1:8443/ [--screenshots DIR] [--state connected|failed] [--any-answers]
//
// --state failed   expects that no session comes about and looks at how the page says so
// --any-answers    does not compare the answers to "Break it" with Tidegate's (for other servers)

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const BROWSER = process.env.CHROMIUM || '/usr/bin/chromium';
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const PATIENCE_MS = 15000;
const LOOKS = [
  { name: 'desktop-light', width: 1280, height: 800, colorScheme: 'light' },
  { name: 'desktop-dark', width: 1280, height: 800, colorScheme: 'dark' },
  { name: 'phone-light', width: 390, height: 844, colorScheme: 'light' },
  { name: 'phone-dark', width: 390, height: 844, colorScheme: 'dark' },
];
const NARROWEST = 360;
const CURVE_PX = 90; // a picture needs some seconds of round trips to show a curve

const { values: options, positionals: [url] } = parseArgs({
  allowPositionals: true,
  options: {
    screenshots: { type: 'string' },
    state: { type: 'string', default: 'connected' },
    'any-answers': { type: 'boolean', default: false },
  },
});
if (!url || !['connected', 'failed'].includes(options.state)) {
  console.error('usage: node demo_page.mjs URL [--screenshots DIR] [--state connected|failed] [--any-answers]');
  process.exit(2);
}

const profile = mkdtempSync(join(tmpdir(), 'demo-page-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: BROWSER,
  args: FLAGS,
  ignoreHTTPSErrors: true,
  viewport: { width: LOOKS[0].width, height: LOOKS[0].height },
});
let failed = false;
try {
  const page = browser.pages()[0] ?? await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const watch = watchFor(page);
  await page.goto(url);
  if (options.state === 'connected') await useIt(page, watch);
  else await seeItFail(page);
  await neverScrollsSideways(page);
  if (options.screenshots) await takePictures(page);
  assert.deepEqual(watch.strangers, [], 'the page asks nobody but its own host');
} catch (error) {
  failed = true;
  console.error(error);
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(failed ? 'demo page: FAILED' : 'demo page: ok');
process.exitCode = failed ? 1 : 0;

function watchFor(page) {
  const seen = { errors: [], strangers: [] };
  const own = new URL(url).host;
  const check = (address) => {
    const { protocol, host } = new URL(address);
    if (!['data:', 'blob:'].includes(protocol) && host !== own) seen.strangers.push(address);
  };
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) seen.errors.push(message.text()); });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('request', (request) => check(request.url()));
  page.on('websocket', (socket) => check(socket.url()));
  return seen;
}

async function useIt(page, watch) {
  for (const version of ['3.1.1', '5']) {
    await page.locator('#version label', { hasText: version }).click();
    await state(page, 'connected');
    await publishes(page, version);
  }
  await page.waitForFunction(() => /^\d/.test(document.getElementById('rtt-last').textContent));
  assert.match(await page.getByRole('img', { name: /Round-trip time/ }).getAttribute('aria-labelledby'), /chart-title/);
  assert.match(await page.locator('#endpoint').textContent(), new RegExp(`^wss?://${new URL(url).host}/mqtt$`));
  assert.match(await page.locator('#client-id').textContent(), /^demo-[0-9a-f]{8}$/);
  await keepsWhatIsRetained(page);
  await leavesAndComesBack(page);
  assert.deepEqual(watch.errors, [], 'no errors or warnings in the console');
  await breaksIt(page);
}

async function state(page, wanted) {
  await page.waitForFunction((name) => document.body.dataset.state === name, wanted);
  assert.match(await page.locator('#state').textContent(), new RegExp(wanted, 'i'));
}

async function publishes(page, version) {
  for (const qos of ['0', '1', '2']) {
    const topic = `tidegate/demo/check/${version}/${qos}`;
    const text = `grüß dich, ${version} with QoS ${qos}`;
    await page.getByLabel('Topic', { exact: true }).fill(topic);
    await page.locator('#payload').fill(text);
    await page.locator('#publish fieldset').first().locator('label', { hasText: qos }).click();
    await page.locator('#publish-button').click();
    const message = page.locator(`#messages li[data-topic="${topic}"]`);
    await message.first().waitFor();
    assert.equal(await message.first().locator('.payload').textContent(), text);
    assert.match(await message.first().locator('.meta').textContent(), new RegExp(`QoS ${qos}`));
    assert.match(await page.locator('#publish-answer').textContent(), qos === '0' ? /Sent/ : /Taken by the broker/);
  }
  await page.locator('#publish label', { hasText: /^hex$/ }).click();
  await page.getByLabel('Topic', { exact: true }).fill(`tidegate/demo/check/${version}/binary`);
  await page.locator('#payload').fill('00 ff 10 80');
  await page.locator('#publish-button').click();
  const binary = page.locator(`#messages li[data-topic="tidegate/demo/check/${version}/binary"] .payload.hex`);
  assert.equal(await binary.first().textContent(), '00 ff 10 80');
  await page.locator('#publish label', { hasText: /^text$/ }).click();
}

async function keepsWhatIsRetained(page) {
  const topic = 'tidegate/check/retained';
  await page.getByLabel('Topic', { exact: true }).fill(topic);
  await page.locator('#payload').fill('kept');
  await page.getByLabel('Retain').check();
  await page.locator('#publish-button').click();
  await page.locator('#publish-answer', { hasText: 'Taken' }).waitFor();
  await page.getByLabel('Topic filter').fill('tidegate/check/+');
  await page.locator('#subscribe-button').click();
  const kept = page.locator(`#messages li[data-topic="${topic}"]`).first();
  assert.match(await kept.locator('.meta').textContent(), /retained/);
  await page.locator('#payload').fill('');
  await page.locator('#publish-button').click(); // an empty one takes it away again
  await page.locator(`#messages li[data-topic="${topic}"] .payload.none`).waitFor();
  await page.getByLabel('Retain').uncheck();
  await page.getByRole('button', { name: 'Unsubscribe from tidegate/check/+' }).click();
  await page.getByLabel('Topic', { exact: true }).fill('tidegate/demo/#');
  await page.locator('#publish-button').click();
  assert.match(await page.locator('#publish-answer').textContent(), /wildcards/);
}

async function leavesAndComesBack(page) {
  await page.getByRole('button', { name: 'Disconnect' }).click();
  await state(page, 'offline');
  assert.ok(await page.locator('#publish-button').isDisabled());
  await page.getByRole('button', { name: 'Connect', exact: true }).click();
  await state(page, 'connected');
  await page.getByLabel('Topic', { exact: true }).fill('tidegate/demo/hello');
  await page.locator('#payload').fill('Hello from the browser');
  await page.locator('#publish-button').click();
  await page.locator('#messages li[data-topic="tidegate/demo/hello"]').first().waitFor();
}

async function breaksIt(page) {
  await page.locator('#break summary').click();
  const expected = {
    'Send a text frame': /Close 1003.*MQTT needs binary frames/,
    'Send something that is not MQTT': /Close 1002/,
    'Publish before CONNECT': /Close 1002.*first MQTT packet must be CONNECT/,
    'CONNECT twice': /Close 1002.*a second MQTT CONNECT/,
    'Announce a 256 MB CONNECT': /Close 1009.*over the limit/,
    'Ask for no subprotocol': /CONNACK 0/,
    'Knock at the wrong path': /HTTP 404.*It says: [^{}]*$/, // words, not the page's style sheet
    'Open the MQTT path as a page': /HTTP 400.*MQTT over WebSocket/, // over HTTP/2; 426 belongs to HTTP/1.1
  };
  for (const [name, answer] of Object.entries(expected)) {
    const button = page.getByRole('button', { name });
    await button.click();
    await page.waitForFunction((label) => [...document.querySelectorAll('#faults button')]
      .every((each) => !each.textContent.startsWith(label) || each.ariaDisabled !== 'true'), name);
    const said = page.locator('#answers li', { hasText: name });
    assert.ok(await said.count() > 0, `${name}: an answer is shown`);
    if (!options['any-answers']) assert.match(await said.first().textContent(), answer, name);
  }
  await state(page, 'connected'); // the page's own session does not suffer
  await page.locator('#break summary').click();
}

async function seeItFail(page) {
  await state(page, 'reconnecting');
  await page.locator('#failure').waitFor();
  assert.match(await page.locator('#failure-text').textContent(), /\w+.*\./);
  assert.match(await page.locator('#failure-codes').textContent(), /CONNACK|DISCONNECT|Close|no WebSocket/);
  await page.locator('#countdown', { hasText: /Trying again in \d+ s/ }).waitFor();
  assert.ok(await page.locator('#said li').count() > 0, 'the events list tells it too');
}

async function neverScrollsSideways(page) {
  for (const width of [NARROWEST, ...LOOKS.map((look) => look.width)]) {
    await page.setViewportSize({ width, height: 800 });
    const [inner, wanted] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
    assert.ok(wanted <= inner, `at ${width} px the page is ${wanted} px wide`);
  }
}

async function takePictures(page) {
  if (options.state === 'connected') {
    await page.waitForFunction((few) => document.querySelectorAll('#chart .line').length > 0
      && document.querySelector('#chart .line').getTotalLength() > few, CURVE_PX);
  }
  mkdirSync(options.screenshots, { recursive: true });
  for (const { name, width, height, colorScheme } of LOOKS) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.evaluate(() => window.scrollTo(0, 0));
    for (const fullPage of [false, true]) {
      const path = join(options.screenshots, `${options.state}-${name}${fullPage ? '-whole' : ''}.png`);
      await page.screenshot({ path, fullPage });
    }
  }
}
