/** Reading NGSI-LD entities (normalized, short names): names, places, numbers, provenance. Pure; nothing here draws or fetches. */

export type Lang = 'en' | 'zh';

/** One attribute instance as the node sends it. What a kind does not use is absent. */
export interface RawAttribute {
  type?: string;
  value?: unknown;
  object?: unknown;
  languageMap?: Record<string, unknown>;
  vocab?: unknown;
  json?: unknown;
  unitCode?: string;
  observedAt?: string;
  datasetId?: string;
  [member: string]: unknown;
}

export interface Entity {
  id: string;
  type: string | string[];
  [attribute: string]: unknown;
}

export interface Provenance {
  city: string | null;
  agreement: string | null;
  receivedAt: string | null;
}

export interface Reading {
  value: number;
  unitCode: string | undefined;
  /** Epoch milliseconds; undefined when the attribute does not say when it was observed. */
  observedAtMs: number | undefined;
}

const notAttributes = new Set(['id', 'type', '@context', 'scope', 'createdAt', 'modifiedAt', 'deletedAt', 'expiresAt']);

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The instance to show for an attribute: the default one (without `datasetId`), else the first. */
export function attributeOf(entity: Entity, name: string): RawAttribute | undefined {
  const raw = entity[name];
  if (Array.isArray(raw)) {
    const instances = raw.filter(isRecord) as RawAttribute[];
    return instances.find((instance) => instance.datasetId === undefined) ?? instances[0];
  }
  return isRecord(raw) ? (raw as RawAttribute) : undefined;
}

/** Names of the entity's attributes in the order in which the node sent them, without `provenance`, which has a place of its own. */
export function attributeNames(entity: Entity): string[] {
  return Object.keys(entity).filter(
    (name) => name !== 'provenance' && !notAttributes.has(name) && attributeOf(entity, name) !== undefined,
  );
}

export function typeOf(entity: Entity): string {
  return Array.isArray(entity.type) ? (entity.type[0] ?? '') : entity.type;
}

/** The text of a language map in the wanted language, else in the other one, else in any. */
export function textIn(languageMap: Record<string, unknown>, lang: Lang): string | undefined {
  const keys = Object.keys(languageMap);
  const pick = (prefix: string) => keys.find((key) => key.toLowerCase() === prefix || key.toLowerCase().startsWith(`${prefix}-`));
  const key = pick(lang) ?? pick('en') ?? pick('zh') ?? pick('@none') ?? keys[0];
  const text = key === undefined ? undefined : languageMap[key];
  if (Array.isArray(text)) return text.join(', ');
  return typeof text === 'string' ? text : undefined;
}

/** The name a person reads: attribute `name` in the language, else the last part of the id. */
export function displayName(entity: Entity, lang: Lang): string {
  const name = attributeOf(entity, 'name');
  if (name?.languageMap !== undefined) {
    const text = textIn(name.languageMap, lang);
    if (text !== undefined && text !== '') return text;
  }
  if (typeof name?.value === 'string' && name.value !== '') return name.value;
  return entity.id.split(':').at(-1) || entity.id;
}

/** A point that stands for the entity's `location`, [longitude, latitude] in WGS 84: the point itself, or the middle of the bounding box. */
export function placeOf(entity: Entity): [number, number] | undefined {
  const geometry = attributeOf(entity, 'location')?.value;
  if (!isRecord(geometry)) return undefined;
  const box = { west: Infinity, south: Infinity, east: -Infinity, north: -Infinity };
  const visit = (node: unknown): void => {
    if (!Array.isArray(node)) return;
    const [lon, lat] = node as unknown[];
    if (typeof lon === 'number' && typeof lat === 'number') {
      box.west = Math.min(box.west, lon);
      box.east = Math.max(box.east, lon);
      box.south = Math.min(box.south, lat);
      box.north = Math.max(box.north, lat);
    } else {
      node.forEach(visit);
    }
  };
  visit(geometry['coordinates']);
  const point: [number, number] = [(box.west + box.east) / 2, (box.south + box.north) / 2];
  const valid = Number.isFinite(point[0]) && Math.abs(point[0]) <= 180 && Number.isFinite(point[1]) && Math.abs(point[1]) <= 90;
  return valid ? point : undefined;
}

/** Epoch milliseconds of an ISO 8601 instant; undefined when it is missing or is none. */
export function instantMs(text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** The number an attribute holds now. Texts that look like numbers are not numbers: the publisher meant a text. */
export function readingOf(entity: Entity, name: string): Reading | undefined {
  const attribute = attributeOf(entity, name);
  if (attribute === undefined || typeof attribute.value !== 'number' || !Number.isFinite(attribute.value)) return undefined;
  return { value: attribute.value, unitCode: attribute.unitCode, observedAtMs: instantMs(attribute.observedAt) };
}

/**
 * Where the answer came from, as the cluster query wrote it into the attribute `provenance`: one entry, or several when more
 * than one agreement permits the data or more than one city has the entity. Empty for an entity of unknown origin.
 */
export function provenancesOf(entity: Entity): Provenance[] {
  const json = attributeOf(entity, 'provenance')?.json;
  const entries: unknown[] = Array.isArray(json) ? json : [json];
  return entries.filter(isRecord).map((entry) => {
    const member = (name: string) => (typeof entry[name] === 'string' ? entry[name] : null);
    return { city: member('city'), agreement: member('agreement'), receivedAt: member('receivedAt') };
  });
}

/** The city that the entity is counted to: the first that gave it. null when that is unknown. */
export function cityOf(entity: Entity): string | null {
  return provenancesOf(entity)[0]?.city ?? null;
}

/** True when the publisher says that the data is computed, not measured: `source` or `dataProvider` mentions a simulation. */
export function isSimulated(entity: Entity): boolean {
  return ['source', 'dataProvider'].some((name) => {
    const attribute = attributeOf(entity, name);
    const texts = [attribute?.value, attribute?.object, ...Object.values(attribute?.languageMap ?? {})];
    return texts.some((text) => /simulat|模拟|仿真/i.test(typeof text === 'string' ? text : JSON.stringify(text ?? '')));
  });
}

const preferredAttributes: Readonly<Record<string, readonly string[]>> = {
  AirQualityObserved: ['pm25', 'airQualityIndex', 'pm10', 'no2', 'o3'],
  WeatherObserved: ['temperature', 'windSpeed', 'relativeHumidity', 'precipitation'],
  TrafficFlowObserved: ['averageVehicleSpeed', 'intensity', 'occupancy'],
  OffStreetParking: ['availableSpotNumber', 'occupiedSpotNumber', 'occupancy', 'totalSpotNumber'],
  SmartMeteringObservation: ['activePower', 'power', 'energyConsumed', 'energy'],
};

/** The attributes of which at least one entity holds a number, the usual ones of the type first, then by how many have them. */
export function numericAttributes(type: string, entities: readonly Entity[]): string[] {
  const counts = new Map<string, number>();
  for (const entity of entities) {
    for (const name of attributeNames(entity)) {
      if (readingOf(entity, name) !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  const preferred = preferredAttributes[type] ?? [];
  const rank = (name: string) => (preferred.includes(name) ? preferred.indexOf(name) : preferred.length);
  return [...counts.keys()].sort(
    (a, b) => rank(a) - rank(b) || (counts.get(b) ?? 0) - (counts.get(a) ?? 0) || a.localeCompare(b),
  );
}
