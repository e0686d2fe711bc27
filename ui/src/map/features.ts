/** Stations as map features. Pure. */
import type { FeatureCollection, Point } from 'geojson';
import { formatNumber } from '../lib/format';
import type { Lang } from '../lib/entity';
import type { StationSet } from '../stations/station';

export interface StationProperties {
  id: string;
  /** Class index, which sizes the circle; 0 without a value. */
  step: number;
  color?: string;
  label?: string;
  stale: boolean;
  simulated: boolean;
}

/** One point per station that has a place. */
export function stationFeatures(set: StationSet, lang: Lang): FeatureCollection<Point, StationProperties> {
  const features: FeatureCollection<Point, StationProperties>['features'] = [];
  for (const station of set.stations) {
    if (station.place === undefined) continue;
    const color = station.classIdx === undefined ? undefined : set.scale.colors[station.classIdx];
    const properties: StationProperties = {
      id: station.id, step: station.classIdx ?? 0, stale: station.stale, simulated: station.simulated,
    };
    if (color !== undefined) properties.color = color;
    if (station.value !== undefined) properties.label = formatNumber(station.value, lang);
    features.push({ type: 'Feature', geometry: { type: 'Point', coordinates: station.place }, properties });
  }
  return { type: 'FeatureCollection', features };
}
