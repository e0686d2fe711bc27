import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `npm run dev` passes API calls on to a running node, so that the page is same-origin there too.
const nodeUrl = process.env['CONURB_URL'] ?? 'http://127.0.0.1:1026';

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'es2022',
    // The base map and MapLibre are large by nature and loaded after the page; a warning on each build says nothing new.
    chunkSizeWarningLimit: 1500,
  },
  server: {
    fs: { allow: ['..'] },
    proxy: { '/api': nodeUrl, '/ngsi-ld': nodeUrl, '/cluster': nodeUrl },
  },
  test: { include: ['src/**/*.test.{ts,tsx}'] },
});
