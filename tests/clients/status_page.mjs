// Opens the status page in Chromium and reads it as an operator does: at a desk and on a phone, by day and by night, with the
// keyboard, while the gateway answers and while it does not. Promises: asks only the host of the given address; ends with 1
// if anything is wrong; prints how long the page took.
//
//   node status_page.mjs http://127.0.0.1:9090/ [--screenshots DIR] [--brokers N] [--text TEXT]... [--state STATE]
//
// --brokers N    the page must know of so many brokers, and show them all when asked to
// --text TEXT    must stand on the page, letter for letter
// --state STATE  what the gateway is; `ready` unless given

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
const OPENS_MS = 500; // a fifth of it on a quiet machine
const LOOKS = [
  { name: 'desktop-light', width: 1280, height: 800, colorScheme: 'light' },
  { name: 'desktop-dark', width: 1280, height: 800, colorScheme: 'dark' },
  { name: 'phone-light', width: 390, height: 844, colorScheme: 'light' },
  { name: 'phone-dark', width: 390, height: 844, colorScheme: 'dark' },
];
const WIDTHS = [360, 390, 800, 1280];

const { values: options, positionals: [url] } = parseArgs({
  allowPositionals: true,
  options: {
    screenshots: { type: 'string' },
    brokers: { type: 'string' },
    text: { type: 'string', multiple: true, default: [] },
    state: { type: 'string', default: 'ready' },
  },
});
if (!url) {
  console.error('usage: node status_page.mjs URL [--screenshots DIR] [--brokers N] [--text TEXT]... [--state STATE]');
  process.exit(2);
}

const profile = mkdtempSync(join(tmpdir(), 'status-page-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: BROWSER,
  args: FLAGS,
  viewport: { width: LOOKS[0].width, height: LOOKS[0].height },
});
let failed = false;
try {
  const page = browser.pages()[0] ?? await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const watch = watchFor(page);
  const answer = await page.goto(url);
  assert.match(answer.headers()['content-security-policy'], /default-src 'none'/);
  await hasThe(page, options.state);
  await opensSoon(page);
  await tells(page);
  await isReadableByAll(page);
  if (options.state === 'draining') await showsTheDrain(page);
  if (options.brokers) await showsEveryBroker(page, Number(options.brokers));
  await looksRightEverywhere(page);
  if (options.screenshots) await takePictures(page);
  assert.deepEqual(watch.errors, [], 'no errors or warnings in the console');
  if (options.state === 'ready') await saysThatTheGatewayIsGone(page);
  assert.deepEqual(watch.strangers, [], 'the page asks nobody but its own host');
} catch (error) {
  failed = true;
  console.error(error);
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(failed ? 'status page: FAILED' : 'status page: ok');
process.exitCode = failed ? 1 : 0;

function watchFor(page) {
  const seen = { errors: [], strangers: [] };
  const own = new URL(url).host;
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) seen.errors.push(message.text()); });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('request', (request) => {
    const { protocol, host } = new URL(request.url());
    if (!['data:', 'blob:'].includes(protocol) && host !== own) seen.strangers.push(request.url());
  });
  return seen;
}

async function hasThe(page, state) {
  await page.waitForFunction((wanted) => document.body.dataset.state === wanted, state);
}

/* The quickest of three: it is the page that is measured, not what else the machine does. */
async function opensSoon(page) {
  const times = [];
  for (let visit = 0; visit < 3; visit += 1) {
    if (visit > 0) await page.goto(url);
    await hasThe(page, options.state);
    times.push(await page.evaluate(() => ({
      loaded: performance.getEntriesByType('navigation')[0].loadEventEnd,
      filled: performance.getEntriesByType('resource').find((each) => each.name.includes('status.json')).responseEnd,
    })));
  }
  const { loaded, filled } = times.reduce((best, each) => (each.filled < best.filled ? each : best));
  console.log(`opened in ${loaded.toFixed(0)} ms, filled after ${filled.toFixed(0)} ms`);
  assert.ok(filled < OPENS_MS, `${filled} ms until its first figures`);
}

async function tells(page) {
  // Two looks, so that the rates are there.
  await page.waitForFunction(() => document.querySelectorAll('.chart .line').length >= 4);
  assert.match(await page.locator('#version').textContent(), /^\d+\.\d+\.\d+/);
  assert.match(await page.locator('#generation').textContent(), /no\. \d+/);
  assert.ok(await page.locator('#pools tbody tr').count() > 0, 'brokers are listed');
  assert.ok(await page.locator('#listeners tbody tr').count() > 0, 'listeners are listed');
  const text = await page.locator('body').textContent();
  for (const wanted of options.text) assert.ok(text.includes(wanted), `${wanted} stands on the page`);
  assert.equal(await page.evaluate(() => globalThis.owned), undefined, 'no text became a script');
  assert.equal(await page.locator('main img, main script, main a[href^="javascript"]').count(), 0, 'no text became markup');
}

async function isReadableByAll(page) {
  for (const landmark of ['banner', 'main', 'contentinfo']) assert.equal(await page.getByRole(landmark).count(), 1, landmark);
  for (const name of ['Pools and brokers', 'Last outcomes', 'Certificates', 'Listeners', 'Sessions']) {
    assert.equal(await page.getByRole('region', { name, exact: true }).count(), 1, name);
  }
  const tables = await page.getByRole('table').count();
  assert.ok(tables >= 2);
  assert.equal(await page.locator('table caption').count(), tables, 'every table has a caption');
  assert.ok(await page.getByRole('columnheader', { name: 'Broker', exact: true }).count() > 0);
  const charts = page.getByRole('img', { name: /the last five minutes\. Now / });
  assert.equal(await charts.count(), 5, 'every graph says in words what it shows');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'brokers-title');
  // A screen reader is told of states and not of every figure.
  assert.equal(await page.locator('[aria-live], [role="status"], [role="alert"]').count(), 2);
}

async function showsEveryBroker(page, count) {
  assert.match(await page.locator('#brokers-sum').textContent(), new RegExp(`of ${count} brokers`));
  const rows = page.locator('#pools tbody tr');
  assert.ok(await rows.count() < count, 'not all of them at first');
  await page.getByRole('button', { name: `Show all ${count}` }).click();
  assert.equal(await rows.count(), count);
  const last = await rows.last().locator('.url').textContent();
  await page.getByRole('searchbox').fill(last);
  await page.waitForFunction(() => document.querySelectorAll('#pools tbody tr').length === 1);
  await page.getByRole('searchbox').fill('');
  await page.getByRole('button', { name: 'Show the first' }).click();
  assert.ok(await rows.count() < count);
}

async function showsTheDrain(page) {
  const bar = page.getByRole('progressbar', { name: 'Draining' });
  const now = Number(await bar.getAttribute('aria-valuenow'));
  assert.ok(now > 0 && now < 100, `${now} % of the sessions have left`);
  assert.match(await page.locator('#drain-left').textContent(), /about \d+ s left/);
}

async function looksRightEverywhere(page) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      const [inner, wanted] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
      assert.ok(wanted <= inner, `at ${width} px the page is ${wanted} px wide`);
    }
    for (const place of ['body', '.figure', 'td', '.chip', 'th', 'footer', '.up']) {
      const found = page.locator(place).first();
      if (await found.count() === 0) continue;
      const ratio = await found.evaluate(contrast);
      assert.ok(ratio >= 4.5, `${place}, ${colorScheme}: contrast ${ratio.toFixed(2)}`);
    }
  }
  await page.setViewportSize({ width: LOOKS[0].width, height: LOOKS[0].height });
}

/* WCAG 2.2, 1.4.3, of an element's text and what stands behind it. */
function contrast(element) {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  let behind = element;
  while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const [one, other] = [light(numbers(getComputedStyle(element).color)), light(numbers(getComputedStyle(behind ?? document.body).backgroundColor))];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}

async function saysThatTheGatewayIsGone(page) {
  await browser.setOffline(true);
  await page.getByRole('alert').filter({ hasText: /has not answered since \d\d:\d\d:\d\d/ }).waitFor();
  assert.equal(await page.locator('#state').textContent(), 'Does not answer');
  await browser.setOffline(false);
  await hasThe(page, 'ready');
  assert.ok(!await page.locator('#gone').isVisible());
}

async function takePictures(page) {
  mkdirSync(options.screenshots, { recursive: true });
  for (const { name, width, height, colorScheme } of LOOKS) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
    await page.evaluate(() => new Promise((drawn) => { requestAnimationFrame(() => requestAnimationFrame(drawn)); }));
    for (const fullPage of [false, true]) {
      await page.screenshot({ path: join(options.screenshots, `${name}${fullPage ? '-whole' : ''}.png`), fullPage });
    }
  }
}
