/** The page's words. English texts are their own names; another language is loaded when it is chosen. */

import { looks } from './looks.svelte';

type Words = Record<string, string>;

const loaded = $state<{ zh: Words | null }>({ zh: null });

export async function loadLanguage(): Promise<void> {
  if (looks.language !== 'en' && loaded.zh === null) loaded.zh = (await import('./zh')).default;
  document.documentElement.lang = looks.language === 'zh' ? 'zh' : 'en';
}

/** The text in the chosen language, with each `{name}` replaced by its value, and each `{name:one|many}` by the form of its number. */
export function t(text: string, values: Record<string, string | number> = {}): string {
  return inLanguage(text).replace(/\{(\w+)(?::([^|{}]*)\|([^{}]*))?\}/g, (whole, name: string, one?: string, many?: string) => {
    const value = String(values[name] ?? whole);
    return one === undefined || many === undefined ? value : value === '1' ? one : many;
  });
}

function inLanguage(text: string): string {
  if (looks.language === 'en') return text;
  if (looks.language === 'zh') return loaded.zh?.[text] ?? text;
  return loaded.zh !== null && !(text in loaded.zh) ? `⟦!${text}⟧` : `⟦${text}⟧`;
}
