/** An attribute's value in words. Pure. */
import { textIn, type Lang, type RawAttribute } from '../lib/entity';
import { formatNumber } from '../lib/format';
import { unitSymbol, withUnit } from '../lib/units';

function plain(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function geometryText(value: unknown): string | undefined {
  const { type, coordinates } = (value ?? {}) as { type?: unknown; coordinates?: unknown };
  if (typeof type !== 'string' || !Array.isArray(coordinates)) return undefined;
  const [lon, lat] = coordinates as unknown[];
  // Longitude first, as everywhere here; five decimals are a metre.
  return type === 'Point' && typeof lon === 'number' && typeof lat === 'number' ? `${lon.toFixed(5)}, ${lat.toFixed(5)}` : type;
}

/** What a person should read: a number with its unit, a text in the language, a place, the target of a relationship, else JSON. */
export function attributeText(attribute: RawAttribute, lang: Lang): string {
  if (attribute.languageMap !== undefined) return textIn(attribute.languageMap, lang) ?? plain(attribute.languageMap);
  if (attribute.object !== undefined) return plain(attribute.object);
  if (attribute.json !== undefined) return plain(attribute.json);
  if (attribute.vocab !== undefined) return plain(attribute.vocab);
  const { value } = attribute;
  if (typeof value === 'number') return withUnit(formatNumber(value, lang), unitSymbol(attribute.unitCode));
  if (attribute.type === 'GeoProperty') return geometryText(value) ?? plain(value);
  if (typeof value === 'object' && value !== null && '@value' in value) return plain((value as { '@value': unknown })['@value']);
  return value === undefined ? '' : plain(value);
}
