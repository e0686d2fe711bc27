/** Server state: what is asked, how often, and how live changes enter it. */
import { useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import {
  ApiError, fetchClusterEntities, fetchHistory, fetchInfo, fetchPeers, fetchTypes, streamLive,
  type ClusterAnswer, type History, type Info, type Peer, type ReceivedChange,
} from '../api';
import { periodOf, type Range } from '../lib/series';
import { backoffMs } from '../lib/sse';
import { pendingChanges } from '../stations/station';

/** How often the whole cluster is asked, in seconds; changes of the local city arrive by themselves in between. */
export const pollSeconds = 5;
const pollMs = pollSeconds * 1000;

/** Changes are applied together this often: a burst of a thousand redraws the map once. */
const applyEveryMs = 400;

export function useInfo(): UseQueryResult<Info> {
  return useQuery({ queryKey: ['info'], queryFn: ({ signal }) => fetchInfo(signal), refetchInterval: 30_000 });
}

export function usePeers(): UseQueryResult<Peer[]> {
  return useQuery({ queryKey: ['peers'], queryFn: ({ signal }) => fetchPeers(signal), refetchInterval: pollMs });
}

export function useTypes(): UseQueryResult<string[]> {
  return useQuery({ queryKey: ['types'], queryFn: ({ signal }) => fetchTypes(signal), refetchInterval: 30_000 });
}

export function useClusterEntities(type: string | undefined): UseQueryResult<ClusterAnswer> {
  return useQuery({
    queryKey: ['entities', type],
    queryFn: ({ signal }) => fetchClusterEntities(type ?? '', signal),
    enabled: type !== undefined,
    refetchInterval: pollMs,
  });
}

/** How often a chart follows new values, in milliseconds: a fast replay brings several a second, a long series takes many questions. */
const followEveryMs: Readonly<Record<Range, number>> = { '24h': 5_000, '7d': 5_000, '30d': 15_000, all: 60_000 };

/** The value, but changing at most once in `everyMs`; at once when `key` changes, because then it is about something else. */
function useThrottled<T>(value: T, key: string, everyMs: number): T {
  const [shown, setShown] = useState({ value, key, atMs: Date.now() });
  useEffect(() => {
    if (Object.is(shown.value, value) && shown.key === key) return undefined;
    const waitMs = shown.key === key ? shown.atMs + everyMs - Date.now() : 0;
    const timer = window.setTimeout(() => setShown({ value, key, atMs: Date.now() }), Math.max(waitMs, 0));
    return () => window.clearTimeout(timer);
  }, [value, key, everyMs, shown]);
  return shown.key === key ? shown.value : value;
}

export function useHistory(now: { id: string; attribute: string; range: Range; newestMs: number }): UseQueryResult<History> {
  const newestMs = useThrottled(now.newestMs, `${now.id} ${now.attribute} ${now.range}`, followEveryMs[now.range]);
  const ask = { ...now, newestMs };
  return useQuery({
    // Superseded answers are of no use to anybody: without this each would stay in memory for minutes.
    gcTime: 10_000,
    // The newest instant is part of the key: a new value extends the chart; the old one stays while the new one loads.
    queryKey: ['history', ask.id, ask.attribute, ask.range, ask.newestMs],
    queryFn: ({ signal }) => fetchHistory({ ...ask, ...periodOf(ask.range, ask.newestMs) }, signal),
    placeholderData: (previous, query) =>
      query?.queryKey[1] === ask.id && query.queryKey[2] === ask.attribute && query.queryKey[3] === ask.range ? previous : undefined,
  });
}

export type LiveState =
  | { name: 'connecting' | 'live' | 'denied' }
  | { name: 'waiting'; detail: string };

export interface Live {
  state: LiveState;
  /**
   * What changed since the last question to the cluster. Kept beside the query's answer, not written into it: an answer that
   * is touched counts as new, so the next question would be put off, and the failure of the last one forgotten.
   */
  changes: readonly ReceivedChange[];
}

const noChanges: readonly ReceivedChange[] = [];

/** Follows the stream of changes of one type and connects again when it breaks. `session` changes with the token. */
export function useLive(type: string | undefined, session: number): Live {
  const client = useQueryClient();
  const [state, setState] = useState<LiveState>({ name: 'connecting' });
  const [changes, setChanges] = useState(noChanges);
  useEffect(() => {
    if (type === undefined) return undefined;
    const stop = new AbortController();
    let waiting: ReceivedChange[] = [];
    const apply = window.setInterval(() => {
      if (waiting.length === 0) return;
      const arrived = waiting;
      waiting = [];
      const askedAtMs = client.getQueryData<ClusterAnswer>(['entities', type])?.askedAtMs ?? 0;
      setChanges((before) => pendingChanges([...before, ...arrived], askedAtMs));
    }, applyEveryMs);
    const askAgain = () => void client.invalidateQueries({ queryKey: ['entities', type] });

    const follow = async () => {
      for (let attempt = 0; !stop.signal.aborted; attempt += 1) {
        let detail = '';
        try {
          if (attempt === 0) setState({ name: 'connecting' });
          const handlers = {
            opened: () => {
              // What happened while nobody listened is only known to a new question.
              if (attempt > 0) askAgain();
              attempt = 0;
              setState({ name: 'live' });
            },
            changed: (change: ReceivedChange) => waiting.push(change),
            lagged: askAgain,
          };
          await streamLive([type], handlers, stop.signal);
          detail = 'closed by the node';
        } catch (error) {
          if (stop.signal.aborted) return;
          if (error instanceof ApiError && error.status === 401) {
            setState({ name: 'denied' });
            return;
          }
          detail = error instanceof Error ? error.message : String(error);
        }
        setState({ name: 'waiting', detail });
        await new Promise((resolve) => window.setTimeout(resolve, backoffMs(attempt, Math.random())));
      }
    };
    void follow();
    return () => {
      stop.abort();
      window.clearInterval(apply);
      setChanges(noChanges);
    };
  }, [client, type, session]);
  return { state, changes };
}
