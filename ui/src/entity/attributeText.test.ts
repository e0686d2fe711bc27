import { expect, test } from 'vitest';
import type { RawAttribute } from '../lib/entity';
import { attributeText } from './attributeText';

test.each<[string, RawAttribute, string]>([
  ['a number with unit', { type: 'Property', value: 35.25, unitCode: 'GQ' }, '35.3\u202fµg/m³'],
  ['a text', { type: 'Property', value: 'UCI 501' }, 'UCI 501'],
  ['a yes or no', { type: 'Property', value: false }, 'false'],
  ['a text in the language', { type: 'LanguageProperty', languageMap: { en: 'Gucheng', zh: '古城' } }, '古城'],
  ['a relationship', { type: 'Relationship', object: 'urn:ngsi-ld:Road:1' }, 'urn:ngsi-ld:Road:1'],
  ['a place', { type: 'GeoProperty', value: { type: 'Point', coordinates: [116.225, 39.9279] } }, '116.22500, 39.92790'],
  ['an area', { type: 'GeoProperty', value: { type: 'Polygon', coordinates: [[[0, 0]]] } }, 'Polygon'],
  ['a typed instant', { type: 'Property', value: { '@type': 'DateTime', '@value': '2014-01-01T00:00:00Z' } }, '2014-01-01T00:00:00Z'],
  ['a structure', { type: 'JsonProperty', json: { a: [1] } }, '{"a":[1]}'],
  ['a word of a vocabulary', { type: 'VocabProperty', vocab: 'good' }, 'good'],
  ['nothing', { type: 'Property' }, ''],
])('%s', (_, attribute, want) => expect(attributeText(attribute, 'zh')).toBe(want));
