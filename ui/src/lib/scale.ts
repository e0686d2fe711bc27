/**
 * Colour classes for values on the map.
 *
 * The colours are samples of "plasma" (Smith and van der Walt, matplotlib): lightness rises evenly, so order can be read by
 * everybody, also without seeing hue. Bright means high in both themes, and each circle has an outline of its own.
 * Classes instead of a smooth ramp: a reader can tell from the legend between which two numbers a circle lies.
 */

export interface Scale {
  /** Ascending upper bounds; class `i` holds values in `(breaks[i - 1], breaks[i]]`, as air-quality rules define theirs. */
  breaks: readonly number[];
  /** One colour per class, `breaks.length + 1` of them. */
  colors: readonly string[];
}

const plasma = ['#0d0887', '#46039f', '#7201a8', '#9c179e', '#bd3786', '#d8576b', '#ed7953', '#fb9f3a', '#fdca26', '#f0f921'] as const;

/** Breaks that people know; everything else takes round numbers from the data. */
const knownBreaks: readonly { attribute: string; unitCode?: string; breaks: readonly number[] }[] = [
  // HJ 633-2012, table 1, 24-hour means: the limits of the Chinese air-quality grades.
  { attribute: 'pm25', unitCode: 'GQ', breaks: [35, 75, 115, 150, 250, 350] },
  { attribute: 'pm10', unitCode: 'GQ', breaks: [50, 150, 250, 350, 420, 500] },
  { attribute: 'airQualityIndex', breaks: [50, 100, 150, 200, 300] },
  { attribute: 'temperature', unitCode: 'CEL', breaks: [-10, 0, 10, 20, 30] },
];

/** A colour of the ramp, `position` from 0 (low) to 1 (high). */
export function rampColor(position: number): string {
  const scaled = Math.min(Math.max(position, 0), 1) * (plasma.length - 1);
  const idx = Math.min(Math.floor(scaled), plasma.length - 2);
  const share = scaled - idx;
  const [low, high] = [plasma[idx] ?? plasma[0], plasma[idx + 1] ?? plasma[0]];
  const channel = (at: number) => {
    const a = Number.parseInt(low.slice(at, at + 2), 16);
    const b = Number.parseInt(high.slice(at, at + 2), 16);
    return Math.round(a + (b - a) * share).toString(16).padStart(2, '0');
  };
  return `#${channel(1)}${channel(3)}${channel(5)}`;
}

/** The largest of 1, 2, 2.5, 5 times a power of ten that is not above `raw`, which must be positive. */
function roundStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = [5, 2.5, 2, 1].find((candidate) => candidate * power <= raw * (1 + 1e-9)) ?? 1;
  return factor * power;
}

const nClassesWanted = 6;

/** Round breaks over the middle 96 % of the values: one broken sensor must not paint all others in one colour. */
export function breaksOf(values: readonly number[]): number[] {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const low = sorted[Math.floor((sorted.length - 1) * 0.02)];
  const high = sorted[Math.ceil((sorted.length - 1) * 0.98)];
  if (low === undefined || high === undefined || high <= low) return [];
  const step = roundStep((high - low) / nClassesWanted);
  const breaks: number[] = [];
  // Multiples of the step by index, not by adding: sums of 0.1 drift.
  for (let i = Math.floor(low / step) + 1; i * step < high; i += 1) breaks.push(Number((i * step).toPrecision(12)));
  // A step rounded down may give up to twice the classes wanted; every second break is round too.
  return breaks.length > nClassesWanted + 2 ? breaks.filter((_, idx) => idx % 2 === 1) : breaks;
}

export function scaleFor(attribute: string, unitCode: string | undefined, values: readonly number[]): Scale {
  const known = knownBreaks.find(
    (entry) => entry.attribute === attribute && (entry.unitCode === undefined || entry.unitCode === unitCode),
  );
  const breaks = known?.breaks ?? breaksOf(values);
  const colors = Array.from({ length: breaks.length + 1 }, (_, idx) =>
    rampColor(breaks.length === 0 ? 0.5 : 0.05 + (0.95 * idx) / breaks.length),
  );
  return { breaks, colors };
}

/** Index of the class that holds `value`. */
export function classOf(scale: Scale, value: number): number {
  let idx = 0;
  while (idx < scale.breaks.length && value > (scale.breaks[idx] ?? Infinity)) idx += 1;
  return idx;
}
