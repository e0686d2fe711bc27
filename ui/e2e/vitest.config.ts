import { defineConfig } from 'vitest/config';

export default defineConfig({
  // One browser, one page after the other: two cores and software rendering.
  test: { include: ['e2e/**/*.spec.ts'], testTimeout: 240_000, hookTimeout: 120_000, fileParallelism: false },
});
