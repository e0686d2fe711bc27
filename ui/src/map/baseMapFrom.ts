/** Land and borders from the atlas. Pure, and apart from loading so that the worker takes nothing else along. */
import type { FeatureCollection, MultiLineString } from 'geojson';
import { feature, mesh } from 'topojson-client';
import type { GeometryCollection, Topology } from 'topojson-specification';

export interface BaseMap {
  land: FeatureCollection;
  /** Lines between countries. Coasts are not among them. */
  borders: MultiLineString;
}

export function baseMapFrom(topology: Topology): BaseMap {
  const countries = topology.objects['countries'] as GeometryCollection;
  return {
    land: feature(topology, topology.objects['land'] as GeometryCollection),
    borders: mesh(topology, countries, (a, b) => a !== b),
  };
}
