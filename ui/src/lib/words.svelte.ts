/** The page's words. English texts are their own names; another language is loaded when it is chosen. */

import { looks } from './looks.svelte';

type Words = Record<string, string>;

const loaded = $state<{ zh: Words | null }>({ zh: null });

export async function loadLanguage(): Promise<void> {
  if (looks.language === 'zh' && loaded.zh === null) loaded.zh = (await import('./zh')).default;
  document.documentElement.lang = looks.language;
}

/** The text in the chosen language, with each `{name}` replaced. */
export function t(text: string, values: Record<string, string | number> = {}): string {
  const words = looks.language === 'zh' ? (loaded.zh?.[text] ?? text) : text;
  return words.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
