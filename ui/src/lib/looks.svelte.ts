/** Looks that this browser keeps: its theme and its language. */

export type Theme = 'system' | 'light' | 'dark';
export type Language = 'en' | 'zh';

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

const theme = read('theme');
const language = read('language');

export const looks = $state<{ theme: Theme; language: Language }>({
  theme: theme === 'light' || theme === 'dark' ? theme : 'system',
  language: language === 'zh' || language === 'en' ? language : navigator.language.startsWith('zh') ? 'zh' : 'en',
});

export function setTheme(value: Theme): void {
  looks.theme = value;
  write('theme', value);
}

export function setLanguage(value: Language): void {
  looks.language = value;
  write('language', value);
}
