/** The chat that is open: it goes on while the user looks at another page. */

import { all, forget, keep, prepare, titleOf, type Chat, type Loss } from './chats';
import { Conversation, markBroken, type Message, type Moment, type Parameters } from './conversation.svelte';
import { identifier } from './identifier';

const FREE: Parameters = { system: '', temperature: '', maxTokens: '', topP: '', seed: '', schema: '', tools: '' };

/** What the browser keeps for this tab alone: the id of its chat, and the message that is not sent yet. */
const OF_TAB = 'xinference.chat';
const DRAFT_OF_TAB = 'xinference.draft';

/** Empty where there is none, or the browser keeps nothing. */
function ofTab(name: string): string {
  try {
    return sessionStorage.getItem(name) ?? '';
  } catch {
    return '';
  }
}

function keepOfTab(name: string, value: string): void {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    // The browser keeps nothing: the chat is open until the page is reloaded.
  }
}

/** Milliseconds between two times at which an answer is stored while it is written. */
const STORE_MS = 1_000;
/** A chat with large images takes long to store: it is stored for at most this share of the time. */
const STORE_SHARE = 0.05;

class Desk {
  id = identifier();
  title = $state('');
  columns = $state<Conversation[]>([]);
  parameters = $state<Parameters>({ ...FREE });
  chats = $state.raw<Chat[]>([]);
  /** The message that is not sent yet: it stays when the user looks at another page, or has to log in again. */
  draft = $state('');
  /** Why the browser did not store the last chat; null where it did. */
  loss = $state<Loss | null>(null);

  /** Whether the chat that this tab had before a reload is open again, if there was one. */
  isRestored = $state(false);

  /** Whether the open chat has something that is not stored. */
  #isUnsaved = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pause = STORE_MS;
  #saves = 0;
  /** Grows when another chat is opened: what a column of the chat before has to say is of no use then. */
  #turn = 0;
  /** Tells the other tabs the id of a chat in which this one has asked, or has got an answer. */
  #tabs = typeof BroadcastChannel === 'function' ? new BroadcastChannel(`xinference-chats ${location.pathname}`) : null;

  constructor() {
    this.#tabs?.addEventListener('message', (event) => void this.#follow(String(event.data)));
    addEventListener('pagehide', () => this.#flush());
    // A phone may end a page that is not shown without another event.
    document.addEventListener('visibilitychange', () => document.hidden && this.#flush());
  }

  /** Open the chat that this tab had before a reload. */
  async restore(): Promise<void> {
    if (this.isRestored) return;
    prepare();
    this.draft ||= ofTab(DRAFT_OF_TAB);
    const id = ofTab(OF_TAB);
    const chat = id && !this.columns.length ? (await all()).chats.find((each) => each.id === id) : undefined;
    if (chat && !this.columns.length) this.open(chat);
    this.isRestored = true;
  }

  /** Follow another tab that has changed the open chat: the last tab to store it would drop what the other has asked. */
  async #follow(id: string): Promise<void> {
    if (id !== this.id) return;
    if (this.#isUnsaved || this.columns.some((each) => each.busy)) {
      this.id = identifier(); // both have asked: each goes on with a chat of its own
      return this.save();
    }
    const turn = this.#turn;
    const chat = (await all()).chats.find((each) => each.id === id);
    if (chat && turn === this.#turn && !this.columns.some((each) => each.busy)) this.#show(chat, chat.columns);
  }

  async list(): Promise<void> {
    for (let saves = -1; saves !== this.#saves; ) {
      saves = this.#saves; // a list that was read before the last save is read again
      const { chats, loss } = await all();
      this.chats = chats;
      this.loss = loss ?? this.loss;
    }
  }

  /** Begin a new chat with the same models. */
  fresh(): void {
    this.#leave();
    this.id = identifier();
    keepOfTab(OF_TAB, '');
    this.title = '';
    this.columns = this.columns.map((each) => this.#column(each.model, []));
  }

  open(chat: Chat): void {
    if (chat.id === this.id && this.columns.some((each) => each.busy)) return;
    this.#show(
      chat,
      chat.columns.map((each) => ({ ...each, messages: markBroken(each.messages) })),
    );
  }

  #show(chat: Chat, columns: Chat['columns']): void {
    this.#leave();
    this.id = chat.id;
    keepOfTab(OF_TAB, chat.id);
    this.title = chat.title;
    this.parameters = { ...FREE, ...chat.parameters };
    this.columns = columns.map((each) => this.#column(each.model, each.messages));
  }

  add(model: string): void {
    this.columns = [...this.columns, this.#column(model, [])];
  }

  drop(column: Conversation): void {
    column.stop();
    this.columns = this.columns.filter((each) => each !== column);
  }

  /** Go on from a message in a chat of its own; the chat until now stays as it is. */
  async branch(column: Conversation, until: number): Promise<void> {
    const messages = $state.snapshot(column.messages.slice(0, until + 1)) as Message[];
    const title = this.title;
    const saved = this.save();
    this.#leave();
    this.id = identifier();
    this.title = title;
    this.columns = [this.#column(column.model, messages)];
    await saved;
    await this.save();
  }

  async save(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isUnsaved = false;
    const first = this.columns.flatMap((each) => each.messages)[0];
    if (!first) return;
    this.title ||= titleOf(first.text);
    const columns = this.columns.map((each) => ({ model: each.model, messages: $state.snapshot(each.messages) as Message[] }));
    keepOfTab(OF_TAB, this.id);
    const began = performance.now();
    await this.#keep({ id: this.id, title: this.title, updated: Date.now(), columns, parameters: $state.snapshot(this.parameters) });
    this.#pause = Math.max(STORE_MS, (performance.now() - began) / STORE_SHARE);
  }

  async rename(chat: Chat, title: string): Promise<void> {
    if (chat.id === this.id) {
      this.title = title;
      await this.save(); // an answer may be on its way
    } else await this.#keep({ ...chat, title });
    await this.list();
  }

  async remove(chat: Chat): Promise<void> {
    if (chat.id === this.id) {
      this.#isUnsaved = false;
      this.fresh();
    }
    await forget(chat.id);
    await this.list();
  }

  async take(chats: Chat[]): Promise<void> {
    for (const chat of chats) await this.#keep(chat);
    await this.list();
  }

  async #keep(chat: Chat): Promise<void> {
    this.#saves += 1;
    this.#enter(chat);
    this.loss = await keep(chat);
    if (this.loss) this.#enter({ ...chat }); // the list says that it is not stored
  }

  /** Put a chat into the list. */
  #enter(chat: Chat): void {
    this.chats = [chat, ...this.chats.filter((each) => each.id !== chat.id)].sort((a, b) => b.updated - a.updated);
  }

  #leave(): void {
    this.#turn += 1;
    for (const column of this.columns) column.stop();
    if (this.#isUnsaved) void this.save();
  }

  /** Store what is not stored yet, now: the page may end at once. */
  #flush(): void {
    keepOfTab(DRAFT_OF_TAB, this.draft);
    if (this.#isUnsaved) void this.save();
  }

  #store(moment: Moment): void {
    const { id } = this;
    this.#isUnsaved = true;
    if (moment === 'written') this.#timer ??= setTimeout(() => void this.save(), this.#pause);
    else void this.save().then(() => this.#tabs?.postMessage(id));
  }

  #column(model: string, messages: Message[]): Conversation {
    const turn = this.#turn;
    const column = new Conversation(model, (moment) => {
      // An answer that was stopped because another chat was opened belongs to no open chat.
      if (this.#turn === turn) this.#store(moment);
    });
    column.messages = messages;
    return column;
  }
}

export const desk = new Desk();
