/** The map's look in both themes, as a MapLibre style. Pure: data arrives later through the sources. */
import type { DataDrivenPropertyValueSpecification, LayerSpecification, StyleSpecification } from 'maplibre-gl';

export interface MapTokens {
  sea: string;
  land: string;
  border: string;
  city: string;
  text: string;
  halo: string;
  outline: string;
  noValue: string;
  selected: string;
}

export const mapTokens: Readonly<Record<'light' | 'dark', MapTokens>> = {
  light: {
    sea: '#dbe6ee', land: '#f7f7f4', border: '#b9bfc6', city: '#0b5cad', text: '#1f2a37', halo: '#ffffff',
    outline: '#2b3440', noValue: '#b4bac2', selected: '#0b5cad',
  },
  dark: {
    sea: '#0d1621', land: '#1a2431', border: '#3a4757', city: '#6ab0f3', text: '#e6edf5', halo: '#0d1621',
    outline: '#e6edf5', noValue: '#5b6777', selected: '#ffffff',
  },
};

// The first of these that the system has draws the labels: the style names no glyphs, so MapLibre draws local fonts and fetches none.
const font = ['system-ui', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', 'Noto Sans SC', 'sans-serif'];

/** Larger for higher classes: size repeats what colour says. `more` pixels are added, for rings. */
function radius(more: number): DataDrivenPropertyValueSpecification<number> {
  const at = (base: number) => ['+', base + more, ['*', base / 9, ['get', 'step']]] as const;
  return ['interpolate', ['linear'], ['zoom'], 3, at(2.5), 7, at(5), 11, at(8)] as unknown as DataDrivenPropertyValueSpecification<number>;
}

/** Value labels start here: below, they would cover each other. */
const labelZoomMin = 8;

function baseLayers(token: MapTokens, base: boolean): LayerSpecification[] {
  return [
    // Until the coasts are known nothing is called sea.
    { id: 'sea', type: 'background', paint: { 'background-color': base ? token.sea : token.land } },
    { id: 'land', type: 'fill', source: 'land', paint: { 'fill-color': token.land, 'fill-outline-color': token.border } },
    { id: 'borders', type: 'line', source: 'borders', paint: { 'line-color': token.border, 'line-width': 0.8, 'line-dasharray': [3, 2] } },
    {
      id: 'city-areas', type: 'fill', source: 'areas',
      paint: { 'fill-color': token.city, 'fill-opacity': ['case', ['get', 'member'], 0.1, 0.02] },
    },
    {
      // Dashed: the outlines are schematic, not boundaries of record.
      id: 'city-lines', type: 'line', source: 'areas',
      paint: { 'line-color': token.city, 'line-width': 1.2, 'line-dasharray': [4, 2], 'line-opacity': ['case', ['get', 'member'], 0.75, 0.2] },
    },
  ];
}

function stationLayers(token: MapTokens): LayerSpecification[] {
  const faded = ['case', ['get', 'stale'], 0.35, 0.95] as unknown as DataDrivenPropertyValueSpecification<number>;
  return [
    {
      id: 'stations-ring', type: 'circle', source: 'stations', filter: ['==', ['get', 'id'], ''],
      paint: { 'circle-radius': radius(6), 'circle-color': token.selected, 'circle-opacity': 0.25, 'circle-stroke-color': token.selected, 'circle-stroke-width': 2 },
    },
    {
      id: 'stations', type: 'circle', source: 'stations', layout: { 'circle-sort-key': ['get', 'step'] },
      paint: {
        'circle-radius': radius(0), 'circle-color': ['case', ['has', 'color'], ['get', 'color'], token.noValue],
        'circle-opacity': faded, 'circle-stroke-color': token.outline, 'circle-stroke-width': 1.1, 'circle-stroke-opacity': faded,
      },
    },
    {
      id: 'stations-simulated', type: 'circle', source: 'stations', filter: ['get', 'simulated'],
      paint: { 'circle-radius': 1.8, 'circle-color': '#ffffff', 'circle-stroke-color': '#000000', 'circle-stroke-width': 0.8, 'circle-opacity': faded },
    },
    {
      id: 'station-values', type: 'symbol', source: 'stations', minzoom: labelZoomMin, filter: ['has', 'label'],
      layout: {
        'text-field': ['get', 'label'], 'text-font': font, 'text-size': 12, 'text-anchor': 'left', 'text-offset': [1.1, 0],
        'symbol-sort-key': ['-', 0, ['get', 'step']],
      },
      paint: { 'text-color': token.text, 'text-halo-color': token.halo, 'text-halo-width': 1.6, 'text-opacity': ['case', ['get', 'stale'], 0.55, 1] },
    },
    {
      id: 'city-names', type: 'symbol', source: 'cities',
      layout: {
        'text-field': ['get', 'name'], 'text-font': font, 'text-size': ['case', ['get', 'member'], 15, 12], 'text-anchor': 'bottom', 'text-offset': [0, -0.9],
        'symbol-sort-key': ['case', ['get', 'member'], 0, 1],
      },
      paint: { 'text-color': token.text, 'text-halo-color': token.halo, 'text-halo-width': 2, 'text-opacity': ['case', ['get', 'member'], 1, 0.6] },
    },
  ];
}

/** The layers from bottom to top; `base` says whether the base map has arrived. */
export function mapLayers(theme: 'light' | 'dark', { base }: { base: boolean }): LayerSpecification[] {
  return [...baseLayers(mapTokens[theme], base), ...stationLayers(mapTokens[theme])];
}

export function mapStyle(theme: 'light' | 'dark'): StyleSpecification {
  const empty = () => ({ type: 'geojson' as const, data: { type: 'FeatureCollection' as const, features: [] } });
  return {
    version: 8,
    // MapLibre deals sources out to its two workers in turn: the large base map goes to one, what people wait for to the other.
    sources: { land: empty(), stations: empty(), borders: empty(), cities: empty(), areas: empty() },
    layers: mapLayers(theme, { base: false }),
  };
}
