/** Starts Chromium for the end-to-end test and watches what a page does wrong. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium, type Browser, type Page } from 'playwright-core';

/** Where the running node is; the test is about the whole page on a real node, so without one there is nothing to test. */
export function nodeUrl(): URL {
  const text = process.env['CONURB_URL'];
  if (text === undefined) throw new Error('CONURB_URL is not set: expected the address of a running node, for example http://127.0.0.1:1026');
  return new URL(text);
}

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env['CONURB_CHROMIUM'] ?? '/usr/bin/chromium',
    args: [
      '--headless', '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
      '--disable-sync', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
    ],
  });
}

export interface Watch {
  /** Console errors, uncaught exceptions, and requests to anywhere but the node. */
  faults: string[];
}

/** `expected` tells which console errors belong to the test, such as the 401 of a login. */
export function watch(page: Page, origin: string, expected: RegExp = /$^/): Watch {
  const faults: string[] = [];
  page.on('console', (message) => {
    const text = `console ${message.type()}: ${message.text()} (${message.location().url})`;
    if (message.type() === 'error' && !expected.test(text)) faults.push(text);
  });
  page.on('pageerror', (error) => faults.push(`uncaught: ${error.message}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol !== 'data:' && url.protocol !== 'blob:' && url.origin !== origin) faults.push(`request to ${request.url()}`);
  });
  return { faults };
}

/** Saves a picture into the folder CONURB_SHOTS, when it is set. */
export async function shot(page: Page, name: string): Promise<void> {
  const folder = process.env['CONURB_SHOTS'];
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** Different colours on a canvas, counted on a coarse grid: one or two mean that nothing was drawn. */
export function colorsOnCanvas(page: Page, selector: string): Promise<number> {
  return page.locator(selector).first().evaluate((element) => {
    const canvas = element as HTMLCanvasElement;
    const context = canvas.getContext('2d');
    if (context === null) throw new Error('expected a 2d canvas');
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set<string>();
    for (let at = 0; at < data.length; at += 4) seen.add(`${data[at]},${data[at + 1]},${data[at + 2]},${data[at + 3]}`);
    return seen.size;
  });
}
