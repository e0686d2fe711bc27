import { expect, test } from 'vitest';
import { boxAround, boxOfCities, cityName, outlines, parseOutline } from './cities';

test('every outline that ships with the node is readable and holds its own centre', () => {
  for (const { properties } of outlines) {
    const box = boxOfCities([properties.key]);
    expect(box, properties.key).toBeDefined();
    const [west, south, east, north] = box ?? [0, 0, 0, 0];
    expect(properties.lon > west && properties.lon < east && properties.lat > south && properties.lat < north, properties.key).toBe(true);
  }
});
test('a city without an outline is called by its key', () => expect(cityName('atlantis', 'zh')).toBe('Atlantis'));
test('the box around nothing is none', () => {
  expect(boxAround([])).toBeUndefined();
  expect(boxOfCities(['atlantis'])).toBeUndefined();
});
test('the box around points', () => expect(boxAround([[1, 2], [-3, 5]])).toEqual([-3, 2, 1, 5]));
test.each([
  ['{}', /expected a GeoJSON Feature/],
  ['{"type":"Feature","properties":{"key":"a","name_en":"A","name_zh":"甲"},"geometry":{"type":"Point"}}', /`a`: expected a polygon/],
])('an outline like %s is refused', (text, message) => expect(() => parseOutline(text)).toThrow(message));
