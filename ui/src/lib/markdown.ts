/** Text of a model as a tree that components draw. No HTML is made of it, and no address is asked. */

import { Lexer, type Token, type Tokens } from 'marked';

export type Node =
  | { kind: 'text'; text: string }
  | { kind: 'strong' | 'em' | 'del' | 'p' | 'quote' | 'item'; inner: Node[] }
  | { kind: 'heading'; level: number; inner: Node[] }
  | { kind: 'code'; text: string }
  | { kind: 'block'; text: string; language: string }
  | { kind: 'link'; href: string; host: string; inner: Node[] }
  | { kind: 'list'; ordered: boolean; start: number; items: Node[][] }
  | { kind: 'table'; head: Node[][]; rows: Node[][][] }
  | { kind: 'rule' | 'break' };

export function tree(text: string): Node[] {
  return nodes(new Lexer({ gfm: true, breaks: true }).lex(text));
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
          head: table.header.map((cell) => nodes(cell.tokens)),
          rows: table.rows.map((row) => row.map((cell) => nodes(cell.tokens))),
        },
      ];
    }
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
    if (url.protocol === 'https:' || url.protocol === 'http:') return { kind: 'link', href: url.href, host: url.host, inner };
    if (url.protocol === 'mailto:') return { kind: 'link', href: url.href, host: '', inner };
  } catch {
    // Not an address of its own: it would lead into this page.
  }
  return { kind: 'text', text: token.raw };
}
