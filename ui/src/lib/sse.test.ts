import { expect, test } from 'vitest';
import { backoffMs, bufferMax, sseParser } from './sse';

const stream = 'event: change\ndata: {"position":1}\n\n: a comment\nevent: heartbeat\ndata:\n\ndata: a\ndata: b\n\n';
const want = [
  { event: 'change', data: '{"position":1}' },
  { event: 'heartbeat', data: '' },
  { event: 'message', data: 'a\nb' },
];

test('events are read', () => expect(sseParser()(stream)).toEqual(want));

test.each(['\n', '\r\n', '\r'])('however the stream is cut, the events are the same (line end %j)', (lineEnd) => {
  const text = `${stream.replaceAll('\n', lineEnd)}`;
  for (let size = 1; size < text.length; size += 1) {
    const parse = sseParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parse(text.slice(at, at + size)));
    // A final lone CR stays undecided until more arrives.
    if (lineEnd === '\r') events.push(...parse(':\r'));
    expect(events, `pieces of ${size}`).toEqual(want);
  }
});

test('an unfinished event is not given', () => expect(sseParser()('event: change\ndata: {')).toEqual([]));
test('an endless event is refused', () => expect(() => sseParser()('x'.repeat(bufferMax + 1))).toThrow(/longer than/));

test('the waits double up to half a minute', () => {
  expect([0, 1, 2, 3, 20].map((attempt) => backoffMs(attempt, 0))).toEqual([1000, 2000, 4000, 8000, 30_000]);
  expect(backoffMs(0, 1)).toBe(1300);
});
