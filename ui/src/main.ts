import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { askEarly } from './lib/families.svelte';
import { answered, start } from './lib/live.svelte';
import { route } from './lib/route.svelte';
import { codeOf } from './lib/session.svelte';
import { pause } from './lib/watch';

/** Milliseconds that the first drawing waits for the server's state: drawn once with it, the page is there sooner than drawn twice. */
const PATIENCE = 60;

async function begin(): Promise<void> {
  if (codeOf(location.hash) === null) {
    start();
    const needed = route.current.page === 'models' ? [answered, askEarly('LLM')] : [answered];
    await Promise.race([Promise.all(needed), pause(PATIENCE)]);
  }
  const target = document.getElementById('app');
  if (target) mount(App, { target });
}

void begin();
