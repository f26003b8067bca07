/** The page that the address names, after its `#`. */

export interface Route {
  page: string;
  rest: string[];
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [page = '', ...rest] = path.split('/').map(decoded);
  return { page: page || 'home', rest: rest.filter(Boolean), query: new URLSearchParams(query) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = $state<{ current: Route }>({ current: parse(location.hash) });

addEventListener('hashchange', () => {
  route.current = parse(location.hash);
});

export function go(...path: string[]): void {
  location.hash = link(...path);
}

export function link(...path: string[]): string {
  return `#/${path.map(encodeURIComponent).join('/')}`;
}
