import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import {
  ApiError, fetchClusterEntities, fetchHistory, fetchPeers, onUnauthorized, setToken, streamLive, type ReceivedChange,
} from './api';

let asked: { path: string; headers: Record<string, string> }[] = [];

/** Lets `fetch` give these answers, one after the other. */
function answers(...responses: Response[]): void {
  asked = [];
  vi.stubGlobal('fetch', (path: string, init: { headers: Record<string, string> }) => {
    asked.push({ path, headers: init.headers });
    const response = responses.shift();
    return response === undefined ? Promise.reject(new Error(`unexpected request to ${path}`)) : Promise.resolve(response);
  });
}

const json = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

beforeEach(() => {
  const kept = new Map<string, string>();
  const sessionStorage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  };
  vi.stubGlobal('window', { sessionStorage, setTimeout, clearTimeout });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

const hour = (n: number) => new Date(Date.UTC(2014, 0, 1, n)).toISOString();
const part = (hours: number[], status: number) => json({ id: 'a', pm25: { type: 'Property', values: hours.map((n) => [n, hour(n)]) } }, status);
const ask = { id: 'urn:a b', attribute: 'pm25', startMs: Date.UTC(2014, 0, 1), endMs: Date.UTC(2014, 0, 2) };

test('a history in parts is continued from the newest instant, without doubles', async () => {
  answers(part([0, 1, 2], 206), part([2, 3, 4], 206), part([4, 5], 200));
  const { points, truncated } = await fetchHistory(ask);
  expect(points.map(({ value }) => value)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(truncated).toBe(false);
  const queries = asked.map(({ path }) => new URL(path, 'http://node').searchParams);
  expect(queries.map((query) => query.get('timeAt'))).toEqual([hour(0), hour(2), hour(4)]);
  expect(queries.every((query) => query.get('endTimeAt') === hour(24) && query.get('attrs') === 'pm25')).toBe(true);
  expect(asked[0]?.path).toMatch(/^\/cluster\/ngsi-ld\/v1\/temporal\/entities\/urn%3Aa%20b\?/);
});

test('a part that brings nothing new ends the questions', async () => {
  answers(part([0], 206));
  expect((await fetchHistory(ask)).points).toHaveLength(1);
});

test('what the node says about a refusal is kept', async () => {
  answers(json({ type: 'x', title: 'Forbidden', detail: 'no agreement covers pm25' }, 403));
  const error: unknown = await fetchHistory(ask).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(ApiError);
  expect((error as ApiError).message).toBe('403 Forbidden: no agreement covers pm25');
});
test('a refusal that is no JSON is quoted', async () => {
  answers(new Response('<h1>Bad gateway</h1>', { status: 502, statusText: 'Bad Gateway' }));
  await expect(fetchPeers()).rejects.toThrow('502 Bad Gateway: <h1>Bad gateway</h1>');
});
test('an answer that is no JSON is an error that names the path', async () => {
  answers(new Response('<!doctype html>', { status: 200 }));
  await expect(fetchPeers()).rejects.toThrow(/expected JSON from \/api\/v1\/peers/);
});

test('the token is sent, and a 401 is told', async () => {
  const told = vi.fn();
  const stop = onUnauthorized(told);
  setToken('sesame');
  answers(json([], 200), json({ title: 'Unauthorized' }, 401));
  await fetchPeers();
  expect(asked[0]?.headers['Authorization']).toBe('Bearer sesame');
  expect(told).not.toHaveBeenCalled();
  setToken(null);
  await expect(fetchPeers()).rejects.toThrow('401');
  expect(asked[1]?.headers['Authorization']).toBeUndefined();
  expect(told).toHaveBeenCalledOnce();
  stop();
});

test('members that a node leaves out are null', async () => {
  answers(json([{ city: 'suzhou', status: 'up', receives: [{ id: 'urn:a:1' }] }]), json({ sources: [{ city: 'suzhou', status: 'ok' }] }));
  expect(await fetchPeers()).toMatchObject([{ error: null, offers: [], receives: [{ id: 'urn:a:1', attributes: null, validUntil: null }] }]);
  expect(await fetchClusterEntities('T')).toMatchObject({ entities: [], sources: [{ count: null, truncated: false }] });
});

test('the stream gives changes and says when some were lost', async () => {
  const entity = { id: 'urn:a', type: 'T' };
  const text = `event: change\ndata: ${JSON.stringify({ position: 7, deleted: false, entity })}\n\nevent: heartbeat\ndata: {}\n\nevent: lagged\ndata: {}\n\n`;
  answers(new Response(text));
  const changes: ReceivedChange[] = [];
  const [opened, lagged] = [vi.fn(), vi.fn()];
  await streamLive(['T', 'U'], { opened, lagged, changed: (change) => changes.push(change) }, new AbortController().signal);
  expect(asked[0]?.path).toBe('/api/v1/live?type=T,U');
  expect(changes).toMatchObject([{ position: 7, deleted: false, entity }]);
  expect(changes[0]?.receivedAtMs).toBeGreaterThan(0);
  expect([opened.mock.calls.length, lagged.mock.calls.length]).toEqual([1, 1]);
});
