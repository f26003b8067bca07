/** Reads server-sent events from a response. */

export interface ServerEvent {
  id: string | null;
  event: string;
  data: string;
}

/** The events of a response; `heard` is called for all that arrives, comments too. */
export async function* serverEvents(response: Response, heard: () => void = () => undefined): AsyncGenerator<ServerEvent> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      rest += value;
      let end: number;
      while ((end = rest.indexOf('\n\n')) >= 0) {
        const event = parse(rest.slice(0, end));
        rest = rest.slice(end + 2);
        if (event !== null) yield event;
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

/** The data of each event of a response. */
export async function* events(response: Response): AsyncGenerator<string> {
  for await (const event of serverEvents(response)) yield event.data;
}

/** One event; null if it has no data, as a comment has none. */
export function parse(block: string): ServerEvent | null {
  const event: ServerEvent = { id: null, event: 'message', data: '' };
  const data: string[] = [];
  for (const line of block.split('\n')) {
    const at = line.indexOf(':');
    if (at < 1) continue;
    const value = line.slice(at + 1).replace(/^ /, '');
    const name = line.slice(0, at);
    if (name === 'data') data.push(value);
    else if (name === 'id' || name === 'event') event[name] = value;
  }
  event.data = data.join('\n');
  return data.length ? event : null;
}
