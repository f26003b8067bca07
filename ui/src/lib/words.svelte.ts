/** The page's words. English texts are their own names; another language is loaded when it is chosen. */

import { fill } from './fill';
import { looks } from './looks.svelte';

type Words = Record<string, string>;

const loaded = $state<{ zh: Words | null }>({ zh: null });

export async function loadLanguage(): Promise<void> {
  if (looks.language !== 'en' && loaded.zh === null) loaded.zh = (await import('./zh')).default;
  document.documentElement.lang = looks.language === 'zh' ? 'zh' : 'en';
}

/** The text in the chosen language, with its values. */
export function t(text: string, values: Record<string, string | number> = {}): string {
  return fill(inLanguage(text), values);
}

function inLanguage(text: string): string {
  if (looks.language === 'en') return text;
  if (looks.language === 'zh') return loaded.zh?.[text] ?? text;
  return loaded.zh !== null && !(text in loaded.zh) ? `⟦!${text}⟧` : `⟦${text}⟧`;
}
