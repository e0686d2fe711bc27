import { expect, test } from 'vitest';
import { formatAgo, formatDuration, formatInstant, formatNumber, zoneOffset } from './format';

test.each([[0, '0'], [0.0345, '0.0345'], [3.456, '3.46'], [34.56, '34.6'], [345.6, '346'], [12345.6, '12,346'], [-7.25, '-7.25']])(
  'the number %d reads %s',
  (value, want) => expect(formatNumber(value, 'en')).toBe(want),
);

const newYear = Date.UTC(2014, 0, 1);
test('an instant is written in the given zone', () => {
  expect(formatInstant(newYear, 'UTC')).toBe('2014-01-01 00:00:00');
  expect(formatInstant(newYear, 'Asia/Shanghai')).toBe('2014-01-01 08:00:00');
  expect(formatInstant(newYear, 'America/St_Johns')).toBe('2013-12-31 20:30:00');
});
test('the offset of the zone is said', () => {
  expect(zoneOffset(newYear, 'Asia/Shanghai')).toBe('UTC+8');
  expect(zoneOffset(newYear, 'America/St_Johns')).toBe('UTC-3:30');
  expect(zoneOffset(newYear, 'UTC')).toBe('UTC');
});

test('how long ago, in both languages', () => {
  expect(formatAgo(newYear, newYear + 3 * 3_600e3, 'en')).toBe('3 hours ago');
  expect(formatAgo(newYear, newYear + 3 * 3_600e3, 'zh')).toBe('3小时前');
  expect(formatAgo(newYear + 2 * 86_400e3, newYear, 'en')).toBe('in 2 days');
  expect(formatAgo(newYear, newYear + 400, 'en')).toBe('now');
});

test.each([[0.84, '0.84\u202fms'], [12.34, '12\u202fms'], [3210, '3.21\u202fs']])('%d ms reads %s', (ms, want) =>
  expect(formatDuration(ms, 'en')).toBe(want),
);
