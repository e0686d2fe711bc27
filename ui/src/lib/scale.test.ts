import { describe, expect, test } from 'vitest';
import { breaksOf, classOf, rampColor, scaleFor } from './scale';

/** Relative luminance, WCAG 2.2. */
function luminance(color: string): number {
  const channels = [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16) / 255);
  const [r, g, b] = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

test('PM2.5 in µg/m³ uses the grades of HJ 633', () => {
  const scale = scaleFor('pm25', 'GQ', [1, 2, 3]);
  expect(scale.breaks).toEqual([35, 75, 115, 150, 250, 350]);
  expect(scale.colors).toHaveLength(7);
  expect([35, 35.1, 75, 350, 351].map((value) => classOf(scale, value))).toEqual([0, 1, 1, 5, 6]);
});

test('PM2.5 in another unit does not', () => expect(scaleFor('pm25', 'GP', [0.01, 0.05, 0.08]).breaks[0]).toBeLessThan(1));

describe('breaks from data', () => {
  test.each([
    [[0, 60], [10, 20, 30, 40, 50]],
    [[12, 27], [12.5, 15, 17.5, 20, 22.5, 25]],
    [[0.1, 0.7], [0.2, 0.3, 0.4, 0.5, 0.6]],
    [[-8, 7], [-7.5, -5, -2.5, 0, 2.5, 5]],
  ])('of %j are %j', (values, want) => expect(breaksOf(values)).toEqual(want));

  test('are none for equal, missing or infinite values', () => {
    expect(breaksOf([4, 4, 4])).toEqual([]);
    expect(breaksOf([])).toEqual([]);
    expect(breaksOf([Number.NaN])).toEqual([]);
  });

  test('are not stretched by one broken sensor', () => {
    const values = [...Array.from({ length: 200 }, (_, i) => i / 10), 1e6];
    expect(Math.max(...breaksOf(values))).toBeLessThanOrEqual(20);
  });

  test.each([1, 3.3, 7, 42, 999, 0.004, 123456])('are at most eight, ascending and inside for a range of %d', (range) => {
    const breaks = breaksOf([range * 0.37, range * 1.37]);
    expect(breaks.length).toBeGreaterThanOrEqual(4);
    expect(breaks.length).toBeLessThanOrEqual(8);
    expect([...breaks].sort((a, b) => a - b)).toEqual(breaks);
    expect(breaks.every((x) => x > range * 0.37 && x < range * 1.37)).toBe(true);
  });
});

test('lightness rises along the ramp, so order is readable without hue', () => {
  const steps = Array.from({ length: 21 }, (_, i) => luminance(rampColor(i / 20)));
  for (let i = 1; i < steps.length; i += 1) expect(steps[i]).toBeGreaterThan(steps[i - 1] ?? 0);
});

test('the ends of the ramp hold beyond it', () => {
  expect(rampColor(-1)).toBe('#0d0887');
  expect(rampColor(2)).toBe('#f0f921');
});
