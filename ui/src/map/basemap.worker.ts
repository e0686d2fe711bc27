/** Turns the atlas into GeoJSON beside the page. Gets its address, answers with the addresses of the parts. */
import type { Topology } from 'topojson-specification';
import { baseMapFrom } from './baseMapFrom';
import type { BaseMapAnswer } from './basemap';

function urlOf(data: GeoJSON.GeoJSON): string {
  return URL.createObjectURL(new Blob([JSON.stringify(data)], { type: 'application/geo+json' }));
}

async function load(atlasUrl: string): Promise<BaseMapAnswer> {
  const response = await fetch(atlasUrl);
  if (!response.ok) return { error: `base map ${atlasUrl}: ${response.status} ${response.statusText}` };
  const { land, borders } = baseMapFrom((await response.json()) as Topology);
  return { land: urlOf(land), borders: urlOf(borders) };
}

self.addEventListener('message', ({ data }: MessageEvent<string>) => {
  load(data).then(
    (answer) => self.postMessage(answer),
    (error: unknown) => self.postMessage({ error: `base map ${data}: ${String(error)}` } satisfies BaseMapAnswer),
  );
});
