import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// The built files are committed, so their names are fixed, and every address is relative: the page works under any path.
export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    outDir: '../src/xinference/web/dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    rollupOptions: {
      output: {
        entryFileNames: 'app.js',
        chunkFileNames: '[name].js',
        assetFileNames: '[name][extname]',
      },
    },
  },
  server: { proxy: { '^/(v1|status|metrics|tokenize|openapi.json)': 'http://127.0.0.1:9997' } },
});
