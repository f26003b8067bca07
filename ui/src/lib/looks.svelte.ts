/** Looks that this browser keeps: its theme and its language. */

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

export const looks = $state<{ theme: Theme; language: Language }>({ theme: themeOf(read('theme')), language: languageOf(read('language')) });

// All tabs look the same.
addEventListener('storage', () => {
  looks.theme = themeOf(read('theme'));
  looks.language = languageOf(read('language'));
});

export function setTheme(value: Theme): void {
  looks.theme = value;
  write('theme', value);
}

export function setLanguage(value: Language): void {
  looks.language = value;
  write('language', value);
}
