/** One tab of a browser holds the stream and tells the others: a browser has only six connections to a server. */

export interface Tab {
  /** Hold the stream until the signal is aborted. */
  lead(signal: AbortSignal): Promise<void>;
  /** A message of the tab that holds the stream, or a question to it. */
  hear(message: unknown): void;
}

const NAME = `xinference-watch ${location.pathname}`;
/** A tab that nobody sees for this long gives the stream up. */
const HIDDEN = 30_000;
/** Without locks, as on a page by plain HTTP of another machine, each visible tab has a stream of its own. */
const HIDDEN_ALONE = 2_000;

export class Tabs {
  readonly #tab: Tab;
  readonly #channel = typeof BroadcastChannel === 'function' && navigator.locks ? new BroadcastChannel(NAME) : null;
  #leaving: AbortController | null = null;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  isLeader = false;

  constructor(tab: Tab) {
    this.#tab = tab;
    this.#channel?.addEventListener('message', (event) => tab.hear(event.data));
    document.addEventListener('visibilitychange', () => this.#look());
  }

  /** Tell the other tabs. */
  say(message: unknown): void {
    this.#channel?.postMessage(message);
  }

  /** Hold the stream now, or as soon as the tab that holds it ends; whether this call began that. */
  start(): boolean {
    if (this.#leaving) return false;
    const leaving = new AbortController();
    this.#leaving = leaving;
    const lead = async (): Promise<void> => {
      if (leaving.signal.aborted) return;
      this.isLeader = true;
      await this.#tab.lead(leaving.signal);
      this.isLeader = false;
    };
    if (!this.#channel) void lead();
    else navigator.locks.request(NAME, { signal: leaving.signal }, lead).catch(() => undefined);
    return true;
  }

  stop(): void {
    this.#leaving?.abort();
    this.#leaving = null;
  }

  #look(): void {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.stop(), this.#channel ? HIDDEN : HIDDEN_ALONE);
    else this.start();
  }
}
