/** The one place that talks to the node. Same origin always; the token, when there is one, goes into `Authorization`. */
import type { Entity, Lang } from './lib/entity';
import { mergePoints, parseTemporalValues, type Point } from './lib/series';
import { sseParser } from './lib/sse';

export interface Info {
  city: string;
  version: string;
  dev: boolean;
  key: string | null;
  startedAt: string | null;
  now: string | null;
}

export interface Agreement {
  id: string | null;
  from: string | null;
  to: string | null;
  types: string[] | null;
  /** `*` stands for all. */
  attributes: string[] | null;
  purpose: string | null;
  precisionDecimals: number | null;
  validUntil: string | null;
  status: string | null;
  /** The whole agreement in words. */
  text: Partial<Record<Lang, string>> | null;
}

export interface Peer {
  city: string;
  url: string | null;
  key: string | null;
  status: 'up' | 'down' | 'unknown' | null;
  since: string | null;
  lastSeen: string | null;
  latencyMs: number | null;
  error: string | null;
  offers: Agreement[] | null;
  receives: Agreement[] | null;
}

/** How one city answered a question to the cluster. */
export interface CitySource {
  city: string;
  status: 'ok' | 'denied' | 'unreachable' | 'error';
  count: number | null;
  ms: number | null;
  /** It has more entities than were asked for. */
  truncated: boolean;
  detail: string | null;
}

export interface ClusterAnswer {
  entities: Entity[];
  sources: CitySource[];
  /** When the question was sent, in epoch milliseconds of this browser: changes that arrived before are part of the answer. */
  askedAtMs: number;
}

export interface Change {
  position: number;
  deleted: boolean;
  entity: Entity;
}

/** A change and when it reached this browser, in epoch milliseconds. */
export interface ReceivedChange extends Change {
  receivedAtMs: number;
}

/** The most entities asked of each city, and the most that a node gives at once; beyond it the console says that some are missing. */
export const clusterLimit = 1000;

/** The node refused or failed: what it said, as RFC 9457 problem details, or the status line. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string | null,
    readonly path: string,
  ) {
    super(detail === null ? `${status} ${title}` : `${status} ${title}: ${detail}`);
    this.name = 'ApiError';
  }
}

const tokenKey = 'conurb.token';
const signedOutListeners = new Set<() => void>();

export function token(): string | null {
  return window.sessionStorage.getItem(tokenKey);
}

export function setToken(value: string | null): void {
  if (value === null) window.sessionStorage.removeItem(tokenKey);
  else window.sessionStorage.setItem(tokenKey, value);
}

/** Calls `listener` whenever the node answers 401. Returns how to stop that. */
export function onUnauthorized(listener: () => void): () => void {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

async function apiError(response: Response, path: string): Promise<ApiError> {
  const text = await response.text().catch(() => '');
  let [title, detail]: [string, string | null] = [response.statusText || 'error', text.slice(0, 300) || null];
  try {
    const problem = JSON.parse(text) as { title?: unknown; detail?: unknown } | null;
    if (typeof problem?.title === 'string') title = problem.title;
    detail = typeof problem?.detail === 'string' ? problem.detail : null;
  } catch {
    // Not JSON, for example from a proxy in between: the beginning of its text has to do.
  }
  return new ApiError(response.status, title, detail, path);
}

async function request(path: string, signal: AbortSignal | undefined, accept: string): Promise<Response> {
  const headers: Record<string, string> = { Accept: accept };
  const bearer = token();
  if (bearer !== null) headers['Authorization'] = `Bearer ${bearer}`;
  const response = await fetch(path, signal === undefined ? { headers } : { headers, signal });
  if (response.status === 401) signedOutListeners.forEach((listener) => listener());
  if (!response.ok) throw await apiError(response, path);
  return response;
}

async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, signal, 'application/json');
  try {
    return (await response.json()) as T;
  } catch (cause) {
    throw new ApiError(response.status, 'not JSON', `expected JSON from ${path}: ${String(cause)}`, path);
  }
}

export async function fetchInfo(signal?: AbortSignal): Promise<Info> {
  const info = await getJson<Partial<Info> & Pick<Info, 'city'>>('/api/v1/info', signal);
  return { version: '', dev: false, key: null, startedAt: null, now: null, ...info };
}

// A member that a node leaves out means the same as null; filling it in here lets everything else know one of the two.
const emptyAgreement: Agreement = {
  id: null, from: null, to: null, types: null, attributes: null, purpose: null, precisionDecimals: null, validUntil: null,
  status: null, text: null,
};
const emptyPeer: Omit<Peer, 'city'> = {
  url: null, key: null, status: null, since: null, lastSeen: null, latencyMs: null, error: null, offers: null, receives: null,
};
const emptySource: Omit<CitySource, 'city' | 'status'> = { count: null, ms: null, truncated: false, detail: null };

export async function fetchPeers(signal?: AbortSignal): Promise<Peer[]> {
  const peers = await getJson<(Partial<Peer> & { city: string })[] | null>('/api/v1/peers', signal);
  const agreements = (list: Agreement[] | null | undefined) => (list ?? []).map((agreement) => ({ ...emptyAgreement, ...agreement }));
  return (peers ?? []).map((peer) => ({
    ...emptyPeer, ...peer, offers: agreements(peer.offers), receives: agreements(peer.receives),
  }));
}

export async function fetchTypes(signal?: AbortSignal): Promise<string[]> {
  const body = await getJson<{ typeList?: string[] } | null>('/ngsi-ld/v1/types', signal);
  return body?.typeList ?? [];
}

export async function fetchClusterEntities(type: string, signal?: AbortSignal): Promise<ClusterAnswer> {
  const query = new URLSearchParams({ type, limit: String(clusterLimit) });
  const askedAtMs = Date.now();
  const body = await getJson<Partial<ClusterAnswer> | null>(`/api/v1/cluster/entities?${query}`, signal);
  return { entities: body?.entities ?? [], sources: (body?.sources ?? []).map((source) => ({ ...emptySource, ...source })), askedAtMs };
}

export interface History {
  points: Point[];
  /** True when the series is longer than what was loaded. */
  truncated: boolean;
}

/** Pages of one history. With some thousand values a page this is decades of hourly data. */
const historyPagesMax = 60;

/** The values of one attribute in `[startMs, endMs)`. A long series comes in parts (206), each continued from the newest instant of the one before. */
export async function fetchHistory(
  ask: { id: string; attribute: string; startMs: number; endMs: number },
  signal?: AbortSignal,
): Promise<History> {
  let points: Point[] = [];
  let fromMs = ask.startMs;
  for (let page = 0; page < historyPagesMax; page += 1) {
    const query = new URLSearchParams({
      attrs: ask.attribute,
      timerel: 'between',
      timeAt: new Date(fromMs).toISOString(),
      endTimeAt: new Date(ask.endMs).toISOString(),
      format: 'temporalValues',
    });
    const path = `/cluster/ngsi-ld/v1/temporal/entities/${encodeURIComponent(ask.id)}?${query}`;
    const response = await request(path, signal, 'application/json');
    const part = parseTemporalValues(await response.json(), ask.attribute);
    points = mergePoints(points, part);
    const newestMs = part.at(-1)?.timeMs;
    // Without progress a further question would get the same answer for ever.
    if (response.status !== 206 || newestMs === undefined || newestMs <= fromMs) return { points, truncated: false };
    fromMs = newestMs;
  }
  return { points, truncated: true };
}

export interface LiveHandlers {
  opened: () => void;
  changed: (change: ReceivedChange) => void;
  /** The node dropped changes for us because we were too slow: ask again for everything. */
  lagged: () => void;
}

/** Silence longer than this means that the connection is dead, although nobody closed it; the node sends heartbeats. */
const silenceMaxMs = 60_000;

/** Reads the stream of changes of the local city until it ends or fails; resolves when the node closes it. */
export async function streamLive(types: readonly string[], handlers: LiveHandlers, signal: AbortSignal): Promise<void> {
  const silence = new AbortController();
  let timer = 0;
  const alive = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => silence.abort(new Error(`no sign of life for ${silenceMaxMs / 1000} s`)), silenceMaxMs);
  };
  alive();
  try {
    const path = `/api/v1/live?type=${types.map(encodeURIComponent).join(',')}`;
    const response = await request(path, AbortSignal.any([signal, silence.signal]), 'text/event-stream');
    if (response.body === null) throw new ApiError(response.status, 'no body', null, path);
    handlers.opened();
    const parse = sseParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      for (const event of parse(value)) {
        if (event.event === 'change') handlers.changed({ ...(JSON.parse(event.data) as Change), receivedAtMs: Date.now() });
        if (event.event === 'lagged') handlers.lagged();
      }
    }
  } finally {
    window.clearTimeout(timer);
  }
}
