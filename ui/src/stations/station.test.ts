import { describe, expect, test } from 'vitest';
import type { Change } from '../api';
import type { Entity } from '../lib/entity';
import { applyChanges, pendingChanges, sortStations, stationSet } from './station';

const at = (hour: number) => new Date(Date.UTC(2014, 0, 1, hour)).toISOString();
const station = (id: string, value: number | null, hour = 0, unitCode = 'GQ', city = 'beijing'): Entity => ({
  id,
  type: 'AirQualityObserved',
  name: { type: 'Property', value: id },
  pm25: value === null ? { type: 'Property', value: 'broken' } : { type: 'Property', value, unitCode, observedAt: at(hour) },
  provenance: { type: 'JsonProperty', json: { city, agreement: null } },
});
const ask = { type: 'AirQualityObserved', attribute: 'pm25', lang: 'en', localCity: 'beijing' } as const;

test('a station is stale relative to the newest value, not to the clock', () => {
  const { stations, newestMs } = stationSet([station('a', 1, 9), station('b', 2, 6), station('c', 3, 5)], ask);
  expect(newestMs).toBe(Date.UTC(2014, 0, 1, 9));
  expect(stations.map((s) => s.stale)).toEqual([false, false, true]);
});

test('a value in a unit that the legend does not speak gets no colour', () => {
  const { stations, unitCode } = stationSet([station('a', 80), station('b', 40), station('c', 0.08, 0, 'GP')], ask);
  expect(unitCode).toBe('GQ');
  expect(stations.map((s) => s.classIdx)).toEqual([2, 1, undefined]);
  expect(stations[2]?.value).toBe(0.08);
});

test('a station without the value stays on the list', () => {
  const { stations } = stationSet([station('a', null)], ask);
  expect(stations).toMatchObject([{ id: 'a', value: undefined, classIdx: undefined, stale: false }]);
});

test('order by value puts missing ones last, by name counts numbers', () => {
  const set = stationSet([station('s10', null), station('s2', 5), station('s1', 9)], ask).stations;
  expect(sortStations(set, 'value', 'en').map((s) => s.id)).toEqual(['s1', 's2', 's10']);
  expect(sortStations(set, 'name', 'en').map((s) => s.id)).toEqual(['s1', 's2', 's10']);
  expect(sortStations([...set].reverse(), 'name', 'zh').map((s) => s.id)).toEqual(['s1', 's2', 's10']);
});

describe('live changes', () => {
  const answer = { entities: [station('a', 1), station('b', 2), station('c', 3, 0, 'GQ', 'tianjin')], sources: [], askedAtMs: 0 };
  const change = (entity: Entity, deleted = false): Change => ({ position: 1, deleted, entity });
  const ids = (changes: Change[]) =>
    stationSet(applyChanges(answer, changes, ask.type, 'beijing').entities, ask).stations.map((s) => [s.id, s.value, s.city]);

  test('replace, add and delete', () => {
    const added = { ...station('d', 4) };
    delete added['provenance'];
    expect(ids([change(station('a', 7)), change(station('b', 0), true), change(added)])).toEqual([
      ['a', 7, 'beijing'], ['c', 3, 'tianjin'], ['d', 4, 'beijing'],
    ]);
  });
  test('the last change of an entity counts', () => {
    expect(ids([change(station('a', 7)), change(station('a', 8))])[0]).toEqual(['a', 8, 'beijing']);
  });
  test('do not touch the data of another city or another type', () => {
    const other = { ...station('e', 1), type: 'WeatherObserved' };
    expect(ids([change(station('c', 9), true), change(other)])).toEqual([['a', 1, 'beijing'], ['b', 2, 'beijing'], ['c', 3, 'tianjin']]);
  });
  test('are kept once per entity, and only while no later question was asked', () => {
    const received = (id: string, value: number, receivedAtMs: number) => ({ ...change(station(id, value)), receivedAtMs });
    const kept = pendingChanges([received('a', 1, 10), received('a', 2, 20), received('b', 3, 9), received('c', 4, 15)], 10);
    expect(kept.map(({ entity, receivedAtMs }) => [entity.id, receivedAtMs])).toEqual([['a', 20], ['c', 15]]);
  });
  test('none leave the answer itself', () => expect(applyChanges(answer, [], ask.type, 'beijing')).toBe(answer));
});
