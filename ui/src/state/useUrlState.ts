/** The URL as a store: components read the state and change it, back and forward work. */
import { useSyncExternalStore } from 'react';
import { formatUrlState, parseUrlState, type UrlState } from './urlState';

let state = parseUrlState(window.location.search);
const listeners = new Set<() => void>();

function notify(): void {
  listeners.forEach((listener) => listener());
}

window.addEventListener('popstate', () => {
  // Back and forward go through what was opened. The map stays where the reader has it, so the URL keeps saying that place.
  state = { ...parseUrlState(window.location.search), view: state.view };
  window.history.replaceState(null, '', `${window.location.pathname}${formatUrlState(state)}`);
  notify();
});

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Changes part of the state. Opening an entity is a step in the browser's history; moving the map or choosing a colour is not. */
export function setUrlState(change: Partial<UrlState>): void {
  const next = { ...state, ...change };
  const step = next.entity !== state.entity && next.entity !== null;
  const url = `${window.location.pathname}${formatUrlState(next)}`;
  state = next;
  if (step) window.history.pushState(null, '', url);
  else window.history.replaceState(null, '', url);
  notify();
}

export function useUrlState(): UrlState {
  return useSyncExternalStore(subscribe, () => state);
}
