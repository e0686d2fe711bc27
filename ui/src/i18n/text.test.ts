import { expect, test } from 'vitest';
import { fill, langOfBrowser, textFor, texts } from './text';

const places = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

test('both languages have the same texts', () => {
  expect(Object.keys(texts.zh)).toEqual(Object.keys(texts.en));
});
test.each(Object.entries(texts.en))('%s has the same places to fill in both languages', (key, text) => {
  expect(places(texts.zh[key as keyof typeof texts.zh])).toEqual(places(text));
});
test('values are filled in, a missing one stays visible', () => {
  expect(fill('{n} of {total}', { n: 3 })).toBe('3 of {total}');
});
test('an unknown attribute keeps its name', () => {
  expect(textFor('zh').attribute('pm25')).toBe('PM2.5');
  expect(textFor('zh').attribute('customThing')).toBe('customThing');
});
test('the first language of the browser decides', () => {
  expect(langOfBrowser(['zh-CN', 'en'])).toBe('zh');
  expect(langOfBrowser(['en-US', 'zh'])).toBe('en');
  expect(langOfBrowser([])).toBe('en');
});
