/** The full-screen map. MapLibre lives in effects; everything it shows comes from props. */
import { Alert } from 'antd';
import { AttributionControl, Map as MapLibreMap, NavigationControl, Popup, ScaleControl, setWorkerCount, setWorkerUrl, type GeoJSONSource } from 'maplibre-gl';
import 'maplibre-gl/dist/maplibre-gl.css';
import workerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?worker&url';
import { useEffect, useRef, useState, type RefObject } from 'react';
import { cityPoints, outlineAreas, type Box } from '../cities/cities';
import { useText } from '../i18n/useText';
import { formatNumber } from '../lib/format';
import { unitSymbol, withUnit } from '../lib/units';
import type { View } from '../state/urlState';
import type { StationSet } from '../stations/station';
import { loadBaseMap } from './basemap';
import { stationFeatures } from './features';
import { mapLayers, mapStyle } from './style';

setWorkerUrl(workerUrl);
setWorkerCount(2);

export interface Focus {
  box: Box;
  /** Changes with each wish, so that asking for the same place twice moves the map twice. */
  wish: number;
}

interface Props {
  theme: 'light' | 'dark';
  set: StationSet;
  cluster: readonly string[];
  selectedId: string | null;
  view: View | null;
  focus: Focus | null;
  onSelect: (id: string) => void;
  onMove: (view: View) => void;
}

/** Resolves when the map has taken the data in; a failure is reported by the map's own `error` event. */
async function setData(map: MapLibreMap, source: string, data: GeoJSON.GeoJSON | string): Promise<void> {
  await map.getSource<GeoJSONSource>(source)?.setData(data);
}

function viewOf(map: MapLibreMap): View {
  const { lng, lat } = map.getCenter().wrap();
  return { lon: lng, lat, zoom: map.getZoom() };
}

/** How long the camera takes, in milliseconds; not at all for a reader who wants no motion. */
function motionMs(): number {
  return window.matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : 600;
}

interface Callbacks {
  onSelect: (id: string) => void;
  onMove: (view: View) => void;
  /** Name and value of a station, for the pointer. */
  describe: (id: string) => string;
}

/** Pixels around the pointer in which a station still counts as hit: circles are small, fingers are not. */
const hitSlackPx = 5;

function listen(map: MapLibreMap, callbacks: RefObject<Callbacks>): void {
  const popup = new Popup({ closeButton: false, closeOnClick: false, offset: 12, className: 'station-popup' });
  const stationAt = (point: { x: number; y: number }) => {
    const box: [[number, number], [number, number]] = [
      [point.x - hitSlackPx, point.y - hitSlackPx], [point.x + hitSlackPx, point.y + hitSlackPx],
    ];
    return map.queryRenderedFeatures(box, { layers: ['stations'] })[0];
  };
  map.on('click', (event) => {
    const id: unknown = stationAt(event.point)?.properties['id'];
    if (typeof id === 'string') callbacks.current.onSelect(id);
  });
  map.on('mousemove', (event) => {
    const feature = stationAt(event.point);
    map.getCanvas().style.cursor = feature === undefined ? '' : 'pointer';
    if (feature?.geometry.type !== 'Point') {
      popup.remove();
      return;
    }
    const [lon, lat] = feature.geometry.coordinates as [number, number];
    popup.setLngLat([lon, lat]).setText(callbacks.current.describe(String(feature.properties['id']))).addTo(map);
  });
  map.on('mouseout', () => popup.remove());
  map.on('moveend', () => callbacks.current.onMove(viewOf(map)));
}

/** Makes the map once. Returns it when its style is ready for data, and why it could not be drawn otherwise. */
function useMap(container: RefObject<HTMLDivElement | null>, props: Props, callbacks: RefObject<Callbacks>) {
  const [map, setMap] = useState<MapLibreMap | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [base, setBase] = useState<'loading' | 'there' | 'failed'>('loading');
  const start = useRef(props);

  useEffect(() => {
    if (container.current === null) return undefined;
    const { view, theme } = start.current;
    const stop = new AbortController();
    let made: MapLibreMap;
    try {
      made = new MapLibreMap({
        container: container.current,
        style: mapStyle(theme),
        center: view === null ? [112, 31] : [view.lon, view.lat],
        zoom: view === null ? 4 : view.zoom,
        minZoom: 2,
        maxZoom: 18,
        attributionControl: false,
        dragRotate: false,
        pitchWithRotate: false,
      });
    } catch (error) {
      setFailure(error instanceof Error ? error.message : String(error));
      return undefined;
    }
    made.touchZoomRotate.disableRotation();
    made.keyboard.disableRotation();
    made.addControl(new NavigationControl({ showCompass: false }), 'bottom-right');
    made.addControl(new ScaleControl({ maxWidth: 110 }), 'bottom-right');
    made.on('load', () => {
      listen(made, callbacks);
      setMap(made);
      const addBaseMap = async () => {
        const { urls, release } = await loadBaseMap(stop.signal);
        if (stop.signal.aborted) return;
        await Promise.all([setData(made, 'land', urls.land), setData(made, 'borders', urls.borders)]);
        release();
        if (!stop.signal.aborted) setBase('there');
      };
      addBaseMap().catch(() => {
        if (!stop.signal.aborted) setBase('failed');
      });
    });
    // For people and tests alike: how many stations are really drawn, not how many were handed over.
    const countDrawn = () => {
      const ids = new Set(made.queryRenderedFeatures({ layers: ['stations'] }).map((feature) => String(feature.properties['id'])));
      made.getContainer().dataset['drawn'] = String(ids.size);
    };
    made.on('idle', countDrawn);
    // The map is not idle before the base map is there too; stations are drawn long before on a slow machine.
    made.on('sourcedata', (event) => {
      if (event.sourceId === 'stations' && event.isSourceLoaded) void made.once('render', countDrawn);
    });
    return () => {
      stop.abort();
      made.remove();
      setMap(null);
    };
  }, [container, callbacks]);
  return { map, failure, base };
}

/** The base map's origin, in the page's language. */
function useAttribution(map: MapLibreMap | null, text: string): void {
  useEffect(() => {
    if (map === null) return undefined;
    const control = new AttributionControl({ compact: false, customAttribution: text });
    map.addControl(control, 'bottom-right');
    return () => {
      if (map.hasControl(control)) map.removeControl(control);
    };
  }, [map, text]);
}

export default function ClusterMap(props: Props) {
  const { theme, set, cluster, selectedId, focus } = props;
  const { t, lang } = useText();
  const container = useRef<HTMLDivElement>(null);
  const describe = (id: string) => {
    const station = set.stations.find((candidate) => candidate.id === id);
    if (station === undefined) return id;
    const value = station.value === undefined ? t('value.none') : withUnit(formatNumber(station.value, lang), unitSymbol(station.unitCode));
    return `${station.name}: ${value}${station.stale ? ` · ${t('tag.stale')}` : ''}${station.simulated ? ` · ${t('tag.simulated')}` : ''}`;
  };
  const callbacks = useRef<Callbacks>({ onSelect: props.onSelect, onMove: props.onMove, describe });
  useEffect(() => {
    callbacks.current = { onSelect: props.onSelect, onMove: props.onMove, describe };
  });
  const { map, failure, base } = useMap(container, props, callbacks);
  useAttribution(map, t('map.attribution'));

  useEffect(() => {
    if (map !== null) void setData(map, 'stations', stationFeatures(set, lang));
  }, [map, set, lang]);

  const clusterKey = cluster.join(' ');
  useEffect(() => {
    if (map === null) return;
    const keys = clusterKey.split(' ');
    void setData(map, 'cities', cityPoints(keys, lang));
    void setData(map, 'areas', outlineAreas(keys));
  }, [map, clusterKey, lang]);

  useEffect(() => {
    if (map === null) return;
    for (const layer of mapLayers(theme, { base: base === 'there' })) {
      for (const [name, value] of Object.entries(layer.paint ?? {})) {
        map.setPaintProperty(layer.id, name as 'circle-color', value as string);
      }
    }
  }, [map, theme, base]);

  const selected = set.stations.find((station) => station.id === selectedId)?.place;
  const [lon, lat] = selected ?? [];
  useEffect(() => {
    if (map === null) return;
    map.setFilter('stations-ring', ['==', ['get', 'id'], selectedId ?? '']);
    // The drawer takes a part of the map with it when it opens: what was chosen must stay in sight.
    map.resize();
    if (lon === undefined || lat === undefined || map.getBounds().contains([lon, lat])) return;
    map.easeTo({ center: [lon, lat], duration: motionMs() });
  }, [map, selectedId, lon, lat]);

  useEffect(() => {
    if (map === null || focus === null) return;
    map.fitBounds(focus.box, { padding: 56, maxZoom: 12, duration: motionMs() });
  }, [map, focus]);

  return (
    <>
      <div ref={container} className="map" data-testid="map" data-ready={map !== null} role="region" aria-label={t('map.label')} />
      {failure !== null && (
        <Alert className="map-failure" type="error" showIcon title={t('map.failed')} description={<>{t('map.failed.hint')} <code>{failure}</code></>} />
      )}
      {base === 'failed' && <Alert className="map-failure" type="warning" showIcon title={t('map.base.failed')} />}
    </>
  );
}
