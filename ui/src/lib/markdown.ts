/** Text of a model as a tree that components draw. No HTML is made of it, and no address is asked. */

import { Lexer, type MarkedOptions, type Token, type Tokens } from 'marked';

export type Node =
  | { kind: 'text'; text: string }
  | { kind: 'strong' | 'em' | 'del' | 'p' | 'quote' | 'item'; inner: Node[] }
  | { kind: 'heading'; level: number; inner: Node[] }
  | { kind: 'code'; text: string }
  | { kind: 'block'; text: string; language: string }
  | { kind: 'link'; href: string; host: string; inner: Node[] }
  | { kind: 'list'; ordered: boolean; start: number; items: Node[][] }
  | { kind: 'table'; align: ('left' | 'center' | 'right' | null)[]; head: Node[][]; rows: Node[][][] }
  | { kind: 'rule' | 'break' };

/** Delimiters of formulas in LaTeX, as models write them. */
const FORMULAS = [
  ['\\[', '\\]'],
  ['\\(', '\\)'],
  ['$$', '$$'],
] as const;
/** Characters of a formula at most: without an end, each beginning would be searched to the end of the text. */
const MOST_OF_BLOCK = 2000;
const MOST_IN_LINE = 500;

const OPTIONS: MarkedOptions = {
  gfm: true,
  breaks: true,
  extensions: {
    renderers: {},
    childTokens: {},
    block: [formulaBlock],
    startBlock: [beginOfBlock],
    inline: [formula],
    startInline: [nextDollar],
  },
};

export function tree(text: string): Node[] {
  return nodes(new Lexer(OPTIONS).lex(text));
}

/** A formula on lines of its own. Its backslashes and stars are no marks of Markdown. */
function formulaBlock(source: string): Tokens.Generic | undefined {
  const indent = /^ {0,3}/.exec(source)?.[0].length ?? 0;
  const found = delimited(source.slice(indent, indent + MOST_OF_BLOCK));
  if (!found || found.open === '\\(' || found.text.includes('\n\n')) return undefined;
  const rest = /^[ \t]*(?:\n|$)/.exec(source.slice(indent + found.length));
  if (!rest) return undefined;
  return { type: 'formulaBlock', raw: source.slice(0, indent + found.length + rest[0].length), text: found.text };
}

/** Where a paragraph ends because a formula is on a line of its own. */
function beginOfBlock(source: string): number | undefined {
  const end = source.indexOf('\n\n');
  const paragraph = end < 0 ? source : source.slice(0, end);
  for (const line of paragraph.matchAll(/\n(?= {0,3}(?:\\\[|\$\$))/g)) {
    // Only a whole one: after each end of a paragraph that is none, the lexer would begin again.
    if (formulaBlock(source.slice(line.index + 1, line.index + 1 + MOST_OF_BLOCK))) return line.index + 1;
  }
  return undefined;
}

function formula(source: string): Tokens.Generic | undefined {
  const part = source.slice(0, MOST_IN_LINE);
  const found = delimited(part) ?? inDollars(part);
  return found ? { type: 'formula', raw: source.slice(0, found.length), text: found.text } : undefined;
}

function delimited(source: string): { open: string; text: string; length: number } | null {
  for (const [open, close] of FORMULAS) {
    if (!source.startsWith(open)) continue;
    const end = source.indexOf(close, open.length);
    const text = source.slice(open.length, end).trim();
    return end < 0 || !text ? null : { open, text, length: end + close.length };
  }
  return null;
}

/** `$x$` is a formula only if it looks like one: `$5 and $10` are prices. */
function inDollars(source: string): { text: string; length: number } | null {
  const text = /^\$((?:[^\s$\\]|\\.)(?:[^$\n\\]|\\.)*?)\$(?!\d)/.exec(source)?.[1];
  if (!text || /\s$/.test(text) || !/[\\^_{}=]|^[A-Za-z]$/.test(text)) return null;
  return { text, length: text.length + 2 };
}

function nextDollar(source: string): number | undefined {
  const at = source.slice(0, MOST_IN_LINE).indexOf('$');
  if (at >= 0) return at;
  return source.length > MOST_IN_LINE ? MOST_IN_LINE : undefined;
}

function nodes(tokens: Token[] | undefined): Node[] {
  return (tokens ?? []).flatMap(node);
}

function node(token: Token): Node[] {
  switch (token.type) {
    case 'space':
    case 'def':
      return [];
    case 'paragraph':
      return [{ kind: 'p', inner: nodes(token.tokens) }];
    case 'heading':
      return [{ kind: 'heading', level: (token as Tokens.Heading).depth, inner: nodes(token.tokens) }];
    case 'strong':
    case 'em':
    case 'del':
      return [{ kind: token.type, inner: nodes(token.tokens) }];
    case 'blockquote':
      return [{ kind: 'quote', inner: nodes(token.tokens) }];
    case 'codespan':
      return [{ kind: 'code', text: (token as Tokens.Codespan).text }];
    case 'code':
      return [{ kind: 'block', text: (token as Tokens.Code).text, language: (token as Tokens.Code).lang ?? '' }];
    case 'br':
      return [{ kind: 'break' }];
    case 'hr':
      return [{ kind: 'rule' }];
    case 'link':
      return [link(token as Tokens.Link)];
    case 'list':
      return [list(token as Tokens.List)];
    case 'table': {
      const table = token as Tokens.Table;
      return [
        {
          kind: 'table',
          align: table.align,
          head: table.header.map((cell) => nodes(cell.tokens)),
          rows: table.rows.map((row) => row.map((cell) => nodes(cell.tokens))),
        },
      ];
    }
    case 'formula':
      return [{ kind: 'code', text: (token as Tokens.Generic).text as string }];
    case 'formulaBlock':
      return [{ kind: 'block', text: (token as Tokens.Generic).text as string, language: 'LaTeX' }];
    case 'checkbox':
      return [{ kind: 'text', text: (token as Tokens.Checkbox).checked ? '☑ ' : '☐ ' }];
    case 'text':
    case 'escape':
      return token.type === 'text' && token.tokens ? nodes(token.tokens) : [{ kind: 'text', text: plain(token) }];
    default:
      // HTML and images are shown as the text that they are written in.
      return [{ kind: 'text', text: token.raw }];
  }
}

function plain(token: Token): string {
  return 'text' in token ? String(token.text) : token.raw;
}

function list(token: Tokens.List): Node {
  return {
    kind: 'list',
    ordered: token.ordered,
    start: typeof token.start === 'number' ? token.start : 1,
    items: token.items.map((item) => nodes(item.tokens)),
  };
}

function link(token: Tokens.Link): Node {
  const inner = nodes(token.tokens);
  try {
    const url = new URL(token.href);
    if (url.protocol === 'https:' || url.protocol === 'http:') {
      // A link whose text is its address shows its host already.
      return { kind: 'link', href: url.href, host: token.text === token.href && token.text.includes(url.host) ? '' : url.host, inner };
    }
    if (url.protocol === 'mailto:') return { kind: 'link', href: url.href, host: '', inner };
  } catch {
    // Not an address of its own: it would lead into this page.
  }
  return { kind: 'text', text: token.raw };
}
