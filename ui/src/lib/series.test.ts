import { describe, expect, test } from 'vitest';
import { gapsOf, linePairs, mergePoints, parseTemporalValues, periodOf, summaryOf, thin, type Point } from './series';

const hourMs = 3_600e3;
const hourly = (values: readonly (number | null)[]): Point[] =>
  values.flatMap((value, idx) => (value === null ? [] : [{ timeMs: idx * hourMs, value }]));

describe('temporalValues', () => {
  test('become points in order of time', () => {
    const body = { id: 'a', pm25: { type: 'Property', values: [[36, '2014-01-01T01:00:00Z'], [35, '2014-01-01T00:00:00Z']] } };
    expect(parseTemporalValues(body, 'pm25')).toEqual([
      { timeMs: Date.UTC(2014, 0, 1, 0), value: 35 },
      { timeMs: Date.UTC(2014, 0, 1, 1), value: 36 },
    ]);
  });
  test('of several instances the first counts', () => {
    const body = { pm25: [{ values: [[1, '2014-01-01T00:00:00Z']] }, { values: [[2, '2014-01-01T00:00:00Z']], datasetId: 'urn:b' }] };
    expect(parseTemporalValues(body, 'pm25').map((point) => point.value)).toEqual([1]);
  });
  test.each([[null], [{}], [{ pm25: { values: 'x' } }], [{ pm25: { values: [[null, '2014-01-01T00:00:00Z'], [3, 'yesterday'], 4] } }]])(
    'of %j are no points',
    (body) => expect(parseTemporalValues(body, 'pm25')).toEqual([]),
  );
});

test('pages are merged without doubles', () => {
  const merged = mergePoints(hourly([1, 2, 3]), [{ timeMs: 2 * hourMs, value: 3 }, { timeMs: 3 * hourMs, value: 4 }]);
  expect(merged.map((point) => point.value)).toEqual([1, 2, 3, 4]);
});

describe('gaps', () => {
  test('one late value is none, two missing ones are', () => {
    expect(gapsOf(hourly([1, 2, null, 3, 4, 5]))).toEqual([]);
    expect(gapsOf(hourly([1, 2, null, null, 3, 4, 5]))).toEqual([{ fromMs: hourMs, toMs: 4 * hourMs }]);
  });
  test('break the line', () => {
    const points = hourly([1, 2, null, null, 3, 4, 5]);
    expect(linePairs(points, gapsOf(points)).map(([, value]) => value)).toEqual([1, 2, null, 3, 4, 5]);
  });
  test('need at least two points', () => expect(gapsOf(hourly([1]))).toEqual([]));
});

describe('thinning', () => {
  const points = hourly(Array.from({ length: 10_000 }, (_, i) => (i > 4000 && i < 4100 ? null : i === 777 ? 1e6 : Math.sin(i / 50))));
  const gaps = gapsOf(points);
  const thinned = thin(points, gaps, 500);
  test('keeps to the limit, in order', () => {
    expect(thinned.length).toBeLessThan(520);
    expect(thinned.length).toBeGreaterThan(300);
    expect([...thinned].sort((a, b) => a.timeMs - b.timeMs)).toEqual(thinned);
  });
  test('keeps peaks, ends and the edges of gaps', () => {
    const times = new Set(thinned.map((point) => point.timeMs));
    expect(thinned.some((point) => point.value === 1e6)).toBe(true);
    expect([times.has(0), times.has(9999 * hourMs), times.has(4000 * hourMs), times.has(4100 * hourMs)]).toEqual([true, true, true, true]);
  });
  test('leaves a short series alone', () => expect(thin(hourly([1, 2]), [], 10)).toEqual(hourly([1, 2])));
});

test('a period ends just after the newest observation', () => {
  const newest = Date.UTC(2014, 11, 31, 23);
  expect(periodOf('24h', newest)).toEqual({ startMs: newest - 24 * hourMs, endMs: newest + 1000 });
  expect(periodOf('all', newest).startMs).toBe(0);
});

test('the summary counts what is there', () => {
  expect(summaryOf(hourly([1, null, 3, 8]))).toEqual({ n: 3, min: 1, mean: 4, max: 8 });
  expect(summaryOf([])).toBeUndefined();
});
