/** Looks that this browser keeps: its theme, its language, and whether letters are keys of the page. */

export type Theme = 'system' | 'light' | 'dark';
/** `pseudo` marks each text that the page translates: a test finds those without a mark. */
export type Language = 'en' | 'zh' | 'pseudo';

function read(name: string): string | null {
  try {
    return localStorage.getItem(`xinference.${name}`);
  } catch {
    return null;
  }
}

function write(name: string, value: string): void {
  try {
    localStorage.setItem(`xinference.${name}`, value);
  } catch {
    // The browser keeps nothing: the looks last as long as the page.
  }
}

function themeOf(value: string | null): Theme {
  return value === 'light' || value === 'dark' ? value : 'system';
}

function languageOf(value: string | null): Language {
  return value === 'zh' || value === 'en' || value === 'pseudo' ? value : navigator.language.startsWith('zh') ? 'zh' : 'en';
}

interface Looks {
  theme: Theme;
  language: Language;
  /** Whether keys without Ctrl, such as `g h`, are commands: dictation software may type them by accident. */
  hasKeys: boolean;
}

function stored(): Looks {
  return { theme: themeOf(read('theme')), language: languageOf(read('language')), hasKeys: read('keys') !== 'off' };
}

export const looks = $state<Looks>(stored());

// All tabs look the same.
addEventListener('storage', () => {
  Object.assign(looks, stored());
});

export function setTheme(value: Theme): void {
  looks.theme = value;
  write('theme', value);
}

export function setLanguage(value: Language): void {
  looks.language = value;
  write('language', value);
}

export function setKeys(hasKeys: boolean): void {
  looks.hasKeys = hasKeys;
  write('keys', hasKeys ? 'on' : 'off');
}
