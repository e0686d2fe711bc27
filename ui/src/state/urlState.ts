/** What the URL holds: everything a person would want to share of this page. Pure parsing and formatting. */
import type { Lang } from '../lib/entity';
import { ranges, type Range } from '../lib/series';

export type Theme = 'system' | 'light' | 'dark';
export type Panel = 'stations' | 'cities';

export interface View {
  lon: number;
  lat: number;
  zoom: number;
}

export interface UrlState {
  view: View | null;
  type: string | null;
  attr: string | null;
  entity: string | null;
  range: Range;
  panel: Panel;
  /** null: as the browser says. */
  lang: Lang | null;
  theme: Theme;
}

function oneOf<T extends string>(text: string | null, allowed: readonly T[]): T | null {
  return allowed.find((candidate) => candidate === text) ?? null;
}

/** `lon,lat,zoom`; null when it is missing or no place on Earth. */
export function parseView(text: string | null): View | null {
  const numbers = (text ?? '').split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  const [lon, lat, zoom] = numbers;
  if (numbers.length !== 3 || lon === undefined || lat === undefined || zoom === undefined) return null;
  const valid = Math.abs(lon) <= 180 && Math.abs(lat) <= 90 && zoom >= 0 && zoom <= 22;
  return valid ? { lon, lat, zoom } : null;
}

/** Reads a query string. What is missing or not understood takes its default: a shared link from a newer version still opens. */
export function parseUrlState(search: string): UrlState {
  const params = new URLSearchParams(search);
  const text = (name: string) => params.get(name) || null;
  return {
    view: parseView(params.get('at')),
    type: text('type'),
    attr: text('attr'),
    entity: text('entity'),
    range: oneOf(params.get('range'), ranges) ?? '7d',
    panel: oneOf(params.get('panel'), ['stations', 'cities'] as const) ?? 'stations',
    lang: oneOf(params.get('lang'), ['en', 'zh'] as const),
    theme: oneOf(params.get('theme'), ['system', 'light', 'dark'] as const) ?? 'system',
  };
}

/** The query string for a state, without what is default. `parseUrlState` reads it back. */
export function formatUrlState(state: UrlState): string {
  const params = new URLSearchParams();
  if (state.view !== null) {
    const { lon, lat, zoom } = state.view;
    params.set('at', `${lon.toFixed(4)},${lat.toFixed(4)},${zoom.toFixed(2)}`);
  }
  for (const name of ['type', 'attr', 'entity', 'lang'] as const) {
    const value = state[name];
    if (value !== null) params.set(name, value);
  }
  if (state.range !== '7d') params.set('range', state.range);
  if (state.panel !== 'stations') params.set('panel', state.panel);
  if (state.theme !== 'system') params.set('theme', state.theme);
  // Colons and commas are legal in a query and make links with URNs readable.
  const text = params.toString().replaceAll('%3A', ':').replaceAll('%2C', ',');
  return text === '' ? '' : `?${text}`;
}
