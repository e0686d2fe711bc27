/**
 * The console on a running node: CONURB_URL says where, CONURB_SHOTS where pictures go, CONURB_TOKEN what to sign in with.
 * The node must know at least one numeric entity with a place and a history; `scripts/` starts such a cluster.
 */
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { colorsOnCanvas, launch, nodeUrl, shot, watch, type Watch } from './browser';

const node = nodeUrl();
const accessToken = process.env['CONURB_TOKEN'];
let browser: Browser;
let context: BrowserContext;
let page: Page;
let watched: Watch;
let signedIn = false;
/** Console errors that belong to signing in: the questions before it are refused. */
const refusals = accessToken === undefined ? /$^/ : /status of 401/;

beforeAll(async () => {
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
});
beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: 'en-GB', timezoneId: 'Asia/Shanghai', colorScheme: 'light' });
  page = await context.newPage();
  page.setDefaultTimeout(60_000);
  watched = watch(page, node.origin, refusals);
  signedIn = false;
});
afterEach(async () => {
  await context.close();
});

const byId = (id: string) => page.getByTestId(id);

/** Opens the page and waits until stations are listed and really drawn on the map. */
async function open(query = ''): Promise<void> {
  await page.goto(new URL(`/${query}`, node).href);
  // The tab keeps the token: a second page in it must not ask again.
  if (accessToken !== undefined && !signedIn) {
    signedIn = true;
    await byId('token').fill(accessToken);
    await byId('token').press('Enter');
  }
  await page.waitForFunction(() => Number(document.querySelector<HTMLElement>('[data-testid=station-count]')?.dataset['count']) > 0);
  await page.waitForFunction(() => Number(document.querySelector<HTMLElement>('[data-testid=map]')?.dataset['drawn']) > 0);
}

/** The first listed station that has a value. */
function firstStation() {
  return page.locator('[data-testid=station]:has(.value:not(.none))').first();
}

async function chartDrawn(): Promise<void> {
  await page.locator('[data-testid=history-chart][data-drawn=true]').waitFor();
  expect(Number(await byId('history-chart').getAttribute('data-points'))).toBeGreaterThan(1);
  expect(await colorsOnCanvas(page, '[data-testid=history-chart] canvas')).toBeGreaterThan(8);
}

test('stations are on the map and in the list, with a legend, and the cluster is asked again and again', async () => {
  let nQuestions = 0;
  page.on('request', (request) => {
    if (new URL(request.url()).pathname === '/api/v1/cluster/entities') nQuestions += 1;
  });
  await open();
  await page.locator('[data-testid=live][data-state=live]').waitFor();
  const listed = Number(await byId('station-count').getAttribute('data-count'));
  const drawn = Number(await byId('map').getAttribute('data-drawn'));
  expect(drawn).toBeGreaterThan(0);
  expect(drawn).toBeLessThanOrEqual(listed);
  expect(await byId('city').innerText()).not.toBe('');
  await byId('legend').waitFor();
  await expect.poll(() => nQuestions, { timeout: 60_000 }).toBeGreaterThan(2);
  await shot(page, '01-map-en-light');
  expect(watched.faults).toEqual([]);
});

test('a station opens with attributes, unit, both times, city and a drawn history', async () => {
  await open();
  const station = firstStation();
  const id = await station.getAttribute('data-id');
  const name = (await station.locator('.name').innerText()).split('\n')[0];
  await station.focus();
  await page.keyboard.press('Enter');
  await byId('headline').waitFor();
  expect(await byId('entity-title').innerText()).toBe(name);
  expect(new URL(page.url()).searchParams.get('entity')).toBe(id);
  const local = await byId('time-local').innerText();
  const utc = await byId('time-utc').innerText();
  expect(local).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\+8$/);
  const [localMs, utcMs] = [local.slice(0, 19), utc].map((text) => Date.parse(`${text.replace(' ', 'T')}Z`)) as [number, number];
  expect(localMs - utcMs).toBe(8 * 3_600e3);
  expect(await byId('entity-city').innerText()).not.toBe('');
  expect(await page.locator('[data-attribute]').count()).toBeGreaterThan(2);
  await chartDrawn();
  await shot(page, '02-entity');

  const nBefore = Number(await byId('history-chart').getAttribute('data-points'));
  await page.locator('.history').getByText('30 days', { exact: true }).click();
  await page.waitForFunction((n) => Number(document.querySelector<HTMLElement>('[data-testid=history-chart]')?.dataset['points']) >= n, nBefore);
  await chartDrawn();
  await shot(page, '03-entity-30d');

  await page.locator('.raw').getByText('Raw JSON').click();
  const raw = JSON.parse(await byId('raw').innerText()) as { id: string };
  expect(raw.id).toBe(id);
  await page.keyboard.press('Escape');
  await byId('headline').waitFor({ state: 'hidden' });
  expect(new URL(page.url()).searchParams.get('entity')).toBeNull();
  expect(watched.faults).toEqual([]);
});

test('a click on the map opens the station under it', async () => {
  await open();
  const id = await firstStation().getAttribute('data-id');
  // Opened once from the list to learn where the station is, then looked at from near, so that the middle of the map is the station.
  await firstStation().click();
  await page.locator('.raw').getByText('Raw JSON').click();
  const raw = JSON.parse(await byId('raw').innerText()) as { type: string; location: { value: { coordinates: [number, number] } } };
  const [lon, lat] = raw.location.value.coordinates;
  await open(`?type=${raw.type}&at=${lon},${lat},17`);
  const box = await byId('map').boundingBox();
  if (box === null) throw new Error('expected the map to have a size');
  await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
  await byId('headline').waitFor();
  expect(new URL(page.url()).searchParams.get('entity')).toBe(id);
  await shot(page, '04-clicked-on-map');
  expect(watched.faults).toEqual([]);
});

test('language and theme change, and the link keeps them', async () => {
  await open();
  await byId('language').click();
  await page.getByRole('tab', { name: '站点' }).waitFor();
  expect(await page.locator('html').getAttribute('lang')).toBe('zh-CN');
  await byId('theme').click();
  await page.getByRole('menuitem', { name: '深色' }).click();
  await page.locator('html[data-theme=dark]').waitFor();
  await firstStation().click();
  await byId('headline').waitFor();
  await chartDrawn();
  await shot(page, '05-entity-zh-dark');
  const link = new URL(page.url());
  expect([link.searchParams.get('lang'), link.searchParams.get('theme')]).toEqual(['zh', 'dark']);
  await open(link.search);
  await byId('headline').waitFor();
  await page.locator('html[data-theme=dark][lang=zh-CN]').waitFor();
  expect(watched.faults).toEqual([]);
});

test('a node that stops answering is reported, and what it said last stays', async () => {
  // The aborted requests themselves are console errors; they are the point of this test.
  watched = watch(page, node.origin, new RegExp(`ERR_FAILED|${refusals.source}`));
  await open();
  const listed = await byId('station-count').getAttribute('data-count');
  await page.route(/\/(api|ngsi-ld|cluster)\//, (route) => route.abort());
  await byId('banner-node').waitFor();
  expect(await byId('station-count').getAttribute('data-count')).toBe(listed);
  await shot(page, '07-node-silent');
  await page.unroute(/\/(api|ngsi-ld|cluster)\//);
  await byId('banner-node').waitFor({ state: 'hidden' });
  expect(watched.faults).toEqual([]);
});

test('the cities panel shows this node and its peers', async () => {
  await open();
  await byId('tab-cities').click();
  await byId('peers').locator('.peer.self').waitFor();
  const peers = (await (await context.request.get(new URL('/api/v1/peers', node).href, {
    headers: accessToken === undefined ? {} : { Authorization: `Bearer ${accessToken}` },
  })).json()) as { city: string; status: string }[];
  for (const peer of peers) {
    expect(await byId(`peer-${peer.city}`).getAttribute('data-status')).toBe(peer.status);
  }
  await shot(page, '06-cities');
  expect(watched.faults).toEqual([]);
});
