/** Numbers and times as people read them. Pure: the zone and "now" come in. */
import type { Lang } from './entity';

const locale: Readonly<Record<Lang, string>> = { en: 'en-GB', zh: 'zh-CN' };

/** A number with as many decimals as its size deserves: 0.034, 3.46, 34.6, 346. */
export function formatNumber(value: number, lang: Lang): string {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : 4;
  return new Intl.NumberFormat(locale[lang], { maximumFractionDigits: digits }).format(value);
}

/** `2014-01-01 08:00:00` in the zone; the same in every language, and sortable. */
export function formatInstant(ms: number, timeZone: string): string {
  const parts = new Intl.DateTimeFormat('en-GB', {
    timeZone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit',
  }).formatToParts(ms);
  const part = (type: string) => parts.find((candidate) => candidate.type === type)?.value ?? '';
  return `${part('year')}-${part('month')}-${part('day')} ${part('hour')}:${part('minute')}:${part('second')}`;
}

/** The zone's offset at an instant: `UTC+8`, `UTC-3:30`, `UTC`. */
export function zoneOffset(ms: number, timeZone: string): string {
  const parts = new Intl.DateTimeFormat('en-GB', { timeZone, timeZoneName: 'shortOffset' }).formatToParts(ms);
  return (parts.find((part) => part.type === 'timeZoneName')?.value ?? 'UTC').replace('GMT', 'UTC').replace(/^UTC\+0$/, 'UTC');
}

export const browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The instant in the reader's own zone, with the offset said. */
export function formatLocal(ms: number): string {
  return `${formatInstant(ms, browserZone)} ${zoneOffset(ms, browserZone)}`;
}

const units: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 365.25 * 86_400e3], ['month', 30.44 * 86_400e3], ['day', 86_400e3], ['hour', 3_600e3], ['minute', 60e3], ['second', 1e3],
];

/** How long ago: `3 hours ago`, `3小时前`; in the future `in 2 days`. */
export function formatAgo(ms: number, nowMs: number, lang: Lang): string {
  const distance = ms - nowMs;
  const [unit, length] = units.find(([, unitMs]) => Math.abs(distance) >= unitMs) ?? ['second', 1e3];
  return new Intl.RelativeTimeFormat(locale[lang], { numeric: 'auto' }).format(Math.trunc(distance / length), unit);
}

/** A duration in milliseconds as one or two digits need it: `0.8 ms`, `12 ms`, `3.2 s`. */
export function formatDuration(ms: number, lang: Lang): string {
  return ms < 1000 ? `${formatNumber(Number(ms.toPrecision(2)), lang)}\u202fms` : `${formatNumber(ms / 1000, lang)}\u202fs`;
}
