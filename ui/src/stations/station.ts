/** From entities to what the map and the list show of them. Pure. */
import { cityOf, displayName, isSimulated, placeOf, readingOf, typeOf, type Entity, type Lang } from '../lib/entity';
import { classOf, scaleFor, type Scale } from '../lib/scale';
import type { Change, ClusterAnswer, ReceivedChange } from '../api';

export interface Station {
  id: string;
  name: string;
  city: string;
  /** [longitude, latitude], WGS 84. */
  place: [number, number] | undefined;
  value: number | undefined;
  unitCode: string | undefined;
  observedAtMs: number | undefined;
  stale: boolean;
  simulated: boolean;
  /** Index into the scale's colours; undefined without a value. */
  classIdx: number | undefined;
}

export interface StationSet {
  stations: Station[];
  scale: Scale;
  unitCode: string | undefined;
  newestMs: number | undefined;
  staleAfterMs: number;
}

const minuteMs = 60_000;

/** A value this much older than the newest one of its type is stale: about three of the usual reporting intervals. */
const staleAfter: Readonly<Record<string, number>> = {
  AirQualityObserved: 180 * minuteMs,
  WeatherObserved: 180 * minuteMs,
  TrafficFlowObserved: 30 * minuteMs,
  OffStreetParking: 30 * minuteMs,
  SmartMeteringObservation: 60 * minuteMs,
};

export function staleAfterMs(type: string): number {
  return staleAfter[type] ?? 180 * minuteMs;
}

/** The unit that most readings have; stations may disagree, each then shows its own. */
function commonUnit(units: readonly (string | undefined)[]): string | undefined {
  const counts = new Map<string | undefined, number>();
  for (const unit of units) counts.set(unit, (counts.get(unit) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

export function stationSet(
  entities: readonly Entity[],
  ask: { type: string; attribute: string; lang: Lang; localCity: string },
): StationSet {
  const readings = entities.map((entity) => readingOf(entity, ask.attribute));
  const present = readings.filter((reading) => reading !== undefined);
  const unitCode = commonUnit(present.map((reading) => reading.unitCode));
  // The scale and its legend speak one unit: numbers in another one would be coloured wrongly, so they get no class.
  const scale = scaleFor(ask.attribute, unitCode, present.filter((r) => r.unitCode === unitCode).map((r) => r.value));
  let newestMs: number | undefined;
  for (const { observedAtMs } of present) {
    if (observedAtMs !== undefined && (newestMs === undefined || observedAtMs > newestMs)) newestMs = observedAtMs;
  }
  const limitMs = staleAfterMs(ask.type);
  const stations = entities.map((entity, idx): Station => {
    const reading = readings[idx];
    const observedAtMs = reading?.observedAtMs;
    return {
      id: entity.id,
      name: displayName(entity, ask.lang),
      city: cityOf(entity) ?? ask.localCity,
      place: placeOf(entity),
      value: reading?.value,
      unitCode: reading?.unitCode,
      observedAtMs,
      stale: newestMs !== undefined && observedAtMs !== undefined && newestMs - observedAtMs > limitMs,
      simulated: isSimulated(entity),
      classIdx: reading !== undefined && reading.unitCode === unitCode ? classOf(scale, reading.value) : undefined,
    };
  });
  return { stations, scale, unitCode, newestMs, staleAfterMs: limitMs };
}

export type Order = 'value' | 'name';

/** Highest value first with missing ones last, or by name as the language sorts. */
export function sortStations(stations: readonly Station[], order: Order, lang: Lang): Station[] {
  const byName = new Intl.Collator(lang === 'zh' ? 'zh-CN' : 'en', { numeric: true }).compare;
  return [...stations].sort((a, b) => {
    const byValue = order === 'value' ? (b.value ?? -Infinity) - (a.value ?? -Infinity) : 0;
    return (Number.isNaN(byValue) ? 0 : byValue) || byName(a.name, b.name);
  });
}

/**
 * The changes worth keeping: the last one of each entity, and none that the answer to a question asked later contains.
 * Their number is bounded by that of the entities, also while the cluster does not answer.
 */
export function pendingChanges(changes: readonly ReceivedChange[], askedAtMs: number): ReceivedChange[] {
  const latest = new Map<string, ReceivedChange>();
  for (const change of changes) if (change.receivedAtMs >= askedAtMs) latest.set(change.entity.id, change);
  return [...latest.values()];
}

/** Applies live changes of the local city to the last answer of the cluster. An entity of another type is left out. */
export function applyChanges(answer: ClusterAnswer, changes: readonly Change[], type: string, localCity: string): ClusterAnswer {
  if (changes.length === 0) return answer;
  const latest = new Map(changes.map((change) => [change.entity.id, change]));
  const entities: Entity[] = [];
  const local = (entity: Entity): Entity =>
    entity['provenance'] === undefined
      ? { ...entity, provenance: { type: 'JsonProperty', json: { city: localCity, agreement: null } } }
      : entity;
  for (const entity of answer.entities) {
    const change = latest.get(entity.id);
    // The neighbour's copy of an id that we also have stays: the change speaks for the local city only.
    if (change === undefined || (cityOf(entity) ?? localCity) !== localCity) {
      entities.push(entity);
    } else {
      latest.delete(entity.id);
      if (!change.deleted) entities.push(local(change.entity));
    }
  }
  for (const change of latest.values()) {
    if (!change.deleted && typeOf(change.entity) === type) entities.push(local(change.entity));
  }
  return { ...answer, entities };
}
