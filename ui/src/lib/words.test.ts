import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import zh from './zh';

const SOURCE = join(import.meta.dirname, '..');

/** The texts that the page translates. */
function texts(): string[] {
  const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' }).filter((name) => /\.(svelte|ts)$/.test(name) && !name.includes('.test.'));
  const found = files.flatMap((name) => [...readFileSync(join(SOURCE, name), 'utf8').matchAll(/\b(?:t|ownProblem)\(\s*'((?:[^'\\]|\\.)*)'/g)]);
  return [...new Set(found.map((match) => match[1] as string))];
}

test('each text has its Chinese, with the same values', () => {
  const all = texts();
  expect(all.length).toBeGreaterThan(100);
  expect(all.filter((text) => !(text in zh))).toEqual([]);
  const values = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();
  expect(Object.entries(zh).filter(([en, words]) => values(en).join() !== values(words).join())).toEqual([]);
});

test('the states of models and the stages of launches have their Chinese', () => {
  const source = readFileSync(join(SOURCE, 'parts/State.svelte'), 'utf8');
  const found = [...source.matchAll(/^ {4}\w+: '([^']+)',$/gm)].map((match) => match[1] as string);
  expect(found.length).toBeGreaterThan(15);
  expect(found.filter((text) => !(text in zh))).toEqual([]);
});
