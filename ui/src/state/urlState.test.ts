import { expect, test } from 'vitest';
import { formatUrlState, parseUrlState, parseView, type UrlState } from './urlState';

const defaults: UrlState = {
  view: null, type: null, attr: null, entity: null, range: '7d', panel: 'stations', lang: null, theme: 'system',
};
const full: UrlState = {
  view: { lon: 121.4737, lat: 31.2304, zoom: 8.25 }, type: 'AirQualityObserved', attr: 'pm25',
  entity: 'urn:ngsi-ld:AirQualityObserved:beijing:Gucheng&a=b+c 古城', range: '30d', panel: 'cities', lang: 'zh', theme: 'dark',
};

test('an empty query is the default, and the default is an empty query', () => {
  expect(parseUrlState('')).toEqual(defaults);
  expect(formatUrlState(defaults)).toBe('');
});
test('a state survives the way through the URL', () => expect(parseUrlState(formatUrlState(full))).toEqual(full));
test('URNs and places stay readable', () => {
  expect(formatUrlState({ ...defaults, entity: 'urn:ngsi-ld:A:b', view: full.view })).toBe('?at=121.4737,31.2304,8.25&entity=urn:ngsi-ld:A:b');
});
test('what is not understood takes its default', () => {
  expect(parseUrlState('?lang=fr&theme=pink&range=1y&panel=x&at=999,1,2&type=&later=1')).toEqual(defaults);
});
test.each([null, '', '1,2', '1,2,', 'a,b,c', '181,0,3', '0,91,3', '0,0,-1', '0,0,99', '1,2,3,4'])('%j is no view', (text) =>
  expect(parseView(text)).toBeNull(),
);
