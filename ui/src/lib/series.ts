/** Time series for the history chart: parsing, gaps, thinning, summary. Pure. */
import { instantMs } from './entity';

export interface Point {
  /** Epoch milliseconds. */
  timeMs: number;
  value: number;
}

/** A stretch without data, from the last point before it to the first after it. */
export interface Gap {
  fromMs: number;
  toMs: number;
}

export interface Summary {
  n: number;
  min: number;
  mean: number;
  max: number;
}

export const ranges = ['24h', '7d', '30d', 'all'] as const;
export type Range = (typeof ranges)[number];

const dayMs = 86_400e3;
const rangeMs: Readonly<Record<Exclude<Range, 'all'>, number>> = { '24h': dayMs, '7d': 7 * dayMs, '30d': 30 * dayMs };

/** The half-open period `[start, end)` of a range that ends with the newest observation, which may be years ago in a replay. */
export function periodOf(range: Range, newestMs: number): { startMs: number; endMs: number } {
  // One second past the newest observation, so that the half-open period contains it.
  return { startMs: range === 'all' ? 0 : newestMs - rangeMs[range], endMs: newestMs + 1000 };
}

/**
 * The numbers of one attribute in an NGSI-LD answer of the form `temporalValues` (GS CIM 009, 4.5.9), ascending in time.
 * Of several attribute instances the first counts; entries that are no number or have no time are left out and appear as gaps.
 */
export function parseTemporalValues(body: unknown, attribute: string): Point[] {
  const member: unknown = (body as Record<string, unknown> | null)?.[attribute];
  const instance: unknown = Array.isArray(member) ? member[0] : member;
  const values: unknown = (instance as { values?: unknown } | undefined)?.values;
  if (!Array.isArray(values)) return [];
  const points: Point[] = [];
  for (const entry of values as unknown[]) {
    if (!Array.isArray(entry)) continue;
    const [value, time] = entry as unknown[];
    const timeMs = instantMs(time);
    if (typeof value === 'number' && Number.isFinite(value) && timeMs !== undefined) points.push({ timeMs, value });
  }
  return points.sort((a, b) => a.timeMs - b.timeMs);
}

/** Two pages of one series as one, ascending; where both know an instant, the later page wins. */
export function mergePoints(earlier: readonly Point[], later: readonly Point[]): Point[] {
  const byTime = new Map<number, Point>();
  for (const point of [...earlier, ...later]) byTime.set(point.timeMs, point);
  return [...byTime.values()].sort((a, b) => a.timeMs - b.timeMs);
}

/** A pause this many usual steps long is a gap: one late message is not, two missing ones are. */
const gapFactor = 2.5;

/** The usual distance between points: the median. Undefined for fewer than two points. */
export function usualStepMs(points: readonly Point[]): number | undefined {
  const steps: number[] = [];
  points.forEach((point, idx) => {
    const before = points[idx - 1];
    if (before !== undefined) steps.push(point.timeMs - before.timeMs);
  });
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)];
}

export function gapsOf(points: readonly Point[]): Gap[] {
  const step = usualStepMs(points);
  if (step === undefined || step <= 0) return [];
  const gaps: Gap[] = [];
  points.forEach((point, idx) => {
    const before = points[idx - 1];
    if (before !== undefined && point.timeMs - before.timeMs > gapFactor * step) gaps.push({ fromMs: before.timeMs, toMs: point.timeMs });
  });
  return gaps;
}

/**
 * At most about `limit` points that look the same when drawn: per bucket the lowest and the highest, so no peak is lost.
 * The ends of gaps stay, so that a gap keeps its true width.
 */
export function thin(points: readonly Point[], gaps: readonly Gap[], limit: number): Point[] {
  const [first, last] = [points[0], points.at(-1)];
  if (points.length <= limit || first === undefined || last === undefined) return [...points];
  const bucketMs = (last.timeMs - first.timeMs + 1) / (limit / 2);
  const keep = new Set<Point>([first, last]);
  const edges = new Set(gaps.flatMap((gap) => [gap.fromMs, gap.toMs]));
  let [bucket, low, high] = [0, first, first];
  for (const point of points) {
    const idx = Math.floor((point.timeMs - first.timeMs) / bucketMs);
    if (idx !== bucket) {
      keep.add(low).add(high);
      [bucket, low, high] = [idx, point, point];
    }
    if (point.value < low.value) low = point;
    if (point.value > high.value) high = point;
    if (edges.has(point.timeMs)) keep.add(point);
  }
  keep.add(low).add(high);
  return [...keep].sort((a, b) => a.timeMs - b.timeMs);
}

/** `[time, value]` pairs for a line chart, with a null inside each gap so that the line breaks there. */
export function linePairs(points: readonly Point[], gaps: readonly Gap[]): [number, number | null][] {
  const broken = new Map(gaps.map((gap) => [gap.toMs, (gap.fromMs + gap.toMs) / 2]));
  const pairs: [number, number | null][] = [];
  for (const point of points) {
    const middle = broken.get(point.timeMs);
    if (middle !== undefined) pairs.push([middle, null]);
    pairs.push([point.timeMs, point.value]);
  }
  return pairs;
}

export function summaryOf(points: readonly Point[]): Summary | undefined {
  if (points.length === 0) return undefined;
  let [min, max, sum] = [Infinity, -Infinity, 0];
  for (const { value } of points) {
    min = Math.min(min, value);
    max = Math.max(max, value);
    sum += value;
  }
  return { n: points.length, min, mean: sum / points.length, max };
}
