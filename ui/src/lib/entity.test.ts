import { describe, expect, test } from 'vitest';
import { attributeNames, cityOf, displayName, isSimulated, numericAttributes, placeOf, provenancesOf, readingOf, type Entity } from './entity';

const gucheng: Entity = {
  id: 'urn:ngsi-ld:AirQualityObserved:beijing:Gucheng',
  type: 'AirQualityObserved',
  name: { type: 'LanguageProperty', languageMap: { en: 'Gucheng', zh: '古城' } },
  location: { type: 'GeoProperty', value: { type: 'Point', coordinates: [116.225, 39.9279] } },
  pm25: { type: 'Property', value: 35, unitCode: 'GQ', observedAt: '2014-01-01T00:00:00Z' },
  source: { type: 'Property', value: 'UCI 501' },
  provenance: { type: 'JsonProperty', json: { city: 'beijing', agreement: null, receivedAt: '2026-01-01T00:00:00Z' } },
};

describe('name', () => {
  test('follows the language', () => {
    expect(displayName(gucheng, 'zh')).toBe('古城');
    expect(displayName(gucheng, 'en')).toBe('Gucheng');
  });
  test('falls back to another language, a plain text, and the id', () => {
    expect(displayName({ ...gucheng, name: { languageMap: { 'zh-CN': '古城' } } }, 'en')).toBe('古城');
    expect(displayName({ ...gucheng, name: { type: 'Property', value: 'Old town' } }, 'zh')).toBe('Old town');
    expect(displayName({ id: 'urn:ngsi-ld:X:a:7', type: 'X' }, 'en')).toBe('7');
  });
});

describe('place', () => {
  test('of a point is the point, longitude first', () => expect(placeOf(gucheng)).toEqual([116.225, 39.9279]));
  test('of an area is the middle of its box', () => {
    const coordinates = [[[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]]];
    expect(placeOf({ ...gucheng, location: { value: { type: 'Polygon', coordinates } } })).toEqual([2, 1]);
  });
  test.each([[undefined], [{ value: null }], [{ value: { type: 'Point', coordinates: [] } }], [{ value: { type: 'Point', coordinates: [500, 1] } }]])(
    'of %j is none',
    (location) => expect(placeOf({ ...gucheng, location })).toBeUndefined(),
  );
});

test('a reading carries value, unit code and time', () => {
  expect(readingOf(gucheng, 'pm25')).toEqual({ value: 35, unitCode: 'GQ', observedAtMs: Date.UTC(2014, 0, 1) });
});
test('a text is not a reading', () => expect(readingOf(gucheng, 'source')).toBeUndefined());
test('of several instances the default one is read', () => {
  const pm25 = [{ value: 1, datasetId: 'urn:b' }, { value: 2 }];
  expect(readingOf({ ...gucheng, pm25 }, 'pm25')?.value).toBe(2);
});

test('provenance is read from the JsonProperty and is not listed as an attribute', () => {
  expect(provenancesOf(gucheng)).toEqual([{ city: 'beijing', agreement: null, receivedAt: '2026-01-01T00:00:00Z' }]);
  expect(cityOf(gucheng)).toBe('beijing');
  expect(attributeNames(gucheng)).toEqual(['name', 'location', 'pm25', 'source']);
});
test('several agreements or cities are several entries, the first city counts', () => {
  const json = [{ city: 'suzhou', agreement: 'urn:a:1' }, { city: 'suzhou', agreement: 'urn:a:2' }, { city: 'wuxi', agreement: null }];
  const entity = { ...gucheng, provenance: { type: 'JsonProperty', json } };
  expect(provenancesOf(entity).map(({ city, agreement }) => [city, agreement])).toEqual([['suzhou', 'urn:a:1'], ['suzhou', 'urn:a:2'], ['wuxi', null]]);
  expect(cityOf(entity)).toBe('suzhou');
});
test('an entity without provenance has none', () => {
  expect(provenancesOf({ id: 'a', type: 'T' })).toEqual([]);
  expect(cityOf({ id: 'a', type: 'T' })).toBeNull();
});

test('simulated data is recognised by source or dataProvider', () => {
  expect(isSimulated(gucheng)).toBe(false);
  expect(isSimulated({ ...gucheng, source: { value: 'conurb Simulator, seed 7' } })).toBe(true);
  expect(isSimulated({ ...gucheng, dataProvider: { value: 'simulation' } })).toBe(true);
  expect(isSimulated({ ...gucheng, dataProvider: { languageMap: { zh: '模拟数据' } } })).toBe(true);
});

test('numeric attributes list the usual one first', () => {
  const others = { aaa: { value: 1 }, no2: { value: 2 } };
  expect(numericAttributes('AirQualityObserved', [{ ...gucheng, ...others }])).toEqual(['pm25', 'no2', 'aaa']);
  expect(numericAttributes('Unheard', [{ ...gucheng, ...others }, gucheng])).toEqual(['pm25', 'aaa', 'no2']);
  expect(numericAttributes('AirQualityObserved', [])).toEqual([]);
});
