/** The offline base map: Natural Earth 1:10 million, from the package `world-atlas`, served by the node itself. */
import atlasUrl from 'world-atlas/countries-10m.json?url';

/** Where the two parts can be read as GeoJSON. */
export interface BaseMapUrls {
  land: string;
  borders: string;
}

/** What the worker answers: addresses, or what went wrong. */
export type BaseMapAnswer = BaseMapUrls | { error: string };

/**
 * Fetches and converts the base map in a worker of its own and gives addresses that the map's worker reads: the coasts of the
 * world are megabytes, and the page must answer to its reader meanwhile. Rejects when it cannot be loaded or `signal` aborts.
 */
export function loadBaseMap(signal: AbortSignal): Promise<{ urls: BaseMapUrls; release: () => void }> {
  const worker = new Worker(new URL('./basemap.worker.ts', import.meta.url), { type: 'module' });
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => {
      worker.terminate();
      reject(new Error('base map: no longer wanted'));
    });
    worker.onerror = (event) => reject(new Error(`base map: ${event.message}`));
    worker.onmessage = ({ data }: MessageEvent<BaseMapAnswer>) => {
      if ('error' in data) reject(new Error(data.error));
      // The addresses live as long as the worker that made them.
      else resolve({ urls: data, release: () => worker.terminate() });
    };
    worker.postMessage(new URL(atlasUrl, window.location.href).href);
  });
}
