import { expect, test } from 'vitest';
import { unitSymbol, withUnit } from './units';

test.each([
  ['GQ', 'µg/m³'], ['GP', 'mg/m³'], ['CEL', '°C'], ['P1', '%'], ['MTS', 'm/s'], ['KMH', 'km/h'], ['A97', 'hPa'], ['DD', '°'],
  ['MMT', 'mm'], ['KWH', 'kWh'], ['KWT', 'kW'], ['59', 'ppm'], ['C62', ''],
])('the code %s is shown as "%s"', (code, want) => {
  expect(unitSymbol(code)).toBe(want);
});

test('a code in lower case is understood', () => expect(unitSymbol('cel')).toBe('°C'));
test('an unknown code is shown as it is', () => expect(unitSymbol('X99')).toBe('X99'));
test('no code is no unit', () => expect(unitSymbol(undefined)).toBe(''));
test('an angle has no space before its sign, other units have one', () => {
  expect(withUnit('270', '°')).toBe('270°');
  expect(withUnit('21.5', '°C')).toBe('21.5\u202f°C');
  expect(withUnit('12', '')).toBe('12');
});
