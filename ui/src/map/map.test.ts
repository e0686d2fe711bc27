import type { Topology } from 'topojson-specification';
import { expect, test } from 'vitest';
import { baseMapFrom } from './baseMapFrom';
import { stationFeatures } from './features';
import { mapLayers, mapStyle } from './style';
import { stationSet } from '../stations/station';

test('the base map has the coast as land and only inner lines as borders', () => {
  // Two squares side by side: the line x = 1 is between them.
  const topology = {
    type: 'Topology',
    arcs: [[[1, 0], [1, 1]], [[1, 1], [0, 1], [0, 0], [1, 0]], [[1, 0], [2, 0], [2, 1], [1, 1]]],
    objects: {
      land: { type: 'GeometryCollection', geometries: [{ type: 'Polygon', arcs: [[2, 1]] }] },
      countries: { type: 'GeometryCollection', geometries: [{ type: 'Polygon', arcs: [[0, 1]] }, { type: 'Polygon', arcs: [[2, -1]] }] },
    },
  } as unknown as Topology;
  const base = baseMapFrom(topology);
  expect(base.borders.coordinates).toEqual([[[1, 0], [1, 1]]]);
  expect(base.land.features.map(({ geometry }) => geometry)).toEqual([
    { type: 'Polygon', coordinates: [[[1, 0], [2, 0], [2, 1], [1, 1], [0, 1], [0, 0], [1, 0]]] },
  ]);
});

test('stations without a place are not on the map, those without a value are, uncoloured', () => {
  const location = { type: 'GeoProperty', value: { type: 'Point', coordinates: [121, 31] } };
  const set = stationSet(
    [
      { id: 'a', type: 'T', location, speed: { value: 12.34 }, source: { value: 'simulated' } },
      { id: 'b', type: 'T', location },
      { id: 'c', type: 'T', speed: { value: 9 } },
    ],
    { type: 'T', attribute: 'speed', lang: 'en', localCity: 'x' },
  );
  const [a, b, ...rest] = stationFeatures(set, 'en').features;
  expect(a?.properties).toMatchObject({ id: 'a', label: '12.3', simulated: true });
  expect(a?.properties.color).toBe(set.scale.colors[set.stations[0]?.classIdx ?? -1]);
  expect(b?.properties).toEqual({ id: 'b', step: 0, stale: false, simulated: false });
  expect(rest).toEqual([]);
});

test('the style fetches nothing: no address, no glyphs, no sprite', () => {
  for (const theme of ['light', 'dark'] as const) {
    const style = mapStyle(theme);
    expect(style.glyphs).toBeUndefined();
    expect(style.sprite).toBeUndefined();
    expect(JSON.stringify(style)).not.toMatch(/https?:/);
  }
});
test('both themes have the same layers', () => {
  expect(mapLayers('dark', { base: true }).map((layer) => layer.id)).toEqual(mapLayers('light', { base: false }).map((layer) => layer.id));
});
