/** City outlines that ship with the node, and the names people use for cities. */
import type { Feature, FeatureCollection, Point, Polygon, MultiPolygon } from 'geojson';
import type { Lang } from '../lib/entity';

export interface CityProperties {
  key: string;
  name_en: string;
  name_zh: string;
  lon: number;
  lat: number;
}

export type CityOutline = Feature<Polygon | MultiPolygon, CityProperties>;

/** [west, south, east, north] in degrees. */
export type Box = [number, number, number, number];

// The folder belongs to the crate `feed`, which places simulated devices inside the same outlines; a new file appears here by itself.
const files = import.meta.glob<string>('../../../crates/feed/outlines/*.geojson', { query: '?raw', import: 'default', eager: true });

/** The outline in a file's text; throws with what is wrong, at build time in tests and at start otherwise. */
export function parseOutline(text: string): CityOutline {
  const feature = JSON.parse(text) as Partial<CityOutline>;
  const { key, name_en, name_zh, lon, lat } = feature.properties ?? {};
  if (feature.type !== 'Feature' || typeof key !== 'string' || typeof name_en !== 'string' || typeof name_zh !== 'string') {
    throw new Error('city outline: expected a GeoJSON Feature with the properties key, name_en and name_zh');
  }
  if (typeof lon !== 'number' || typeof lat !== 'number' || !/Polygon$/.test(feature.geometry?.type ?? '')) {
    throw new Error(`city outline \`${key}\`: expected a polygon and the numbers lon and lat`);
  }
  return feature as CityOutline;
}

export const outlines: readonly CityOutline[] = Object.values(files).map(parseOutline);

export function cityName(key: string, lang: Lang): string {
  const city = outlines.find((outline) => outline.properties.key === key)?.properties;
  if (city !== undefined) return lang === 'zh' ? city.name_zh : city.name_en;
  return key.charAt(0).toUpperCase() + key.slice(1);
}

/** One labelled point per outline; cities of the cluster are marked, so that the others can stay in the background. */
export function cityPoints(cluster: readonly string[], lang: Lang): FeatureCollection<Point> {
  return {
    type: 'FeatureCollection',
    features: outlines.map(({ properties }) => ({
      type: 'Feature',
      geometry: { type: 'Point', coordinates: [properties.lon, properties.lat] },
      properties: { name: cityName(properties.key, lang), member: cluster.includes(properties.key) },
    })),
  };
}

export function outlineAreas(cluster: readonly string[]): FeatureCollection {
  return {
    type: 'FeatureCollection',
    features: outlines.map((outline) => ({
      ...outline,
      properties: { key: outline.properties.key, member: cluster.includes(outline.properties.key) },
    })),
  };
}

/** The smallest box around points; undefined when there are none. Clusters do not span the antimeridian, and neither does this. */
export function boxAround(points: Iterable<readonly [number, number]>): Box | undefined {
  const box: Box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [lon, lat] of points) {
    box[0] = Math.min(box[0], lon);
    box[1] = Math.min(box[1], lat);
    box[2] = Math.max(box[2], lon);
    box[3] = Math.max(box[3], lat);
  }
  return Number.isFinite(box[0]) ? box : undefined;
}

/** The box around some cities' outlines. */
export function boxOfCities(keys: readonly string[]): Box | undefined {
  const points: [number, number][] = [];
  for (const { geometry, properties } of outlines) {
    if (!keys.includes(properties.key)) continue;
    const polygons = geometry.type === 'Polygon' ? [geometry.coordinates] : geometry.coordinates;
    for (const [lon, lat] of polygons.flat(2)) if (lon !== undefined && lat !== undefined) points.push([lon, lat]);
  }
  return boxAround(points);
}
