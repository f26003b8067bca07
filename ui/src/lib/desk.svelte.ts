/** The chat that is open: it goes on while the user looks at another page. */

import { all, forget, keep, titleOf, type Chat, type Loss } from './chats';
import { Conversation, type Message, type Parameters } from './conversation.svelte';
import { identifier } from './identifier';

const FREE: Parameters = { system: '', temperature: '', maxTokens: '', topP: '', seed: '', schema: '', tools: '' };

const OF_TAB = 'xinference.chat';

/** The chat of this tab; empty where there is none, or the browser keeps nothing. */
function ofTab(): string {
  try {
    return sessionStorage.getItem(OF_TAB) ?? '';
  } catch {
    return '';
  }
}

function keepOfTab(id: string): void {
  try {
    sessionStorage.setItem(OF_TAB, id);
  } catch {
    // The browser keeps nothing: the chat is open until the page is reloaded.
  }
}

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

  /** Open the chat that this tab had before a reload. */
  async restore(): Promise<void> {
    if (this.isRestored) return;
    const id = ofTab();
    const chat = id && !this.columns.length ? (await all()).chats.find((each) => each.id === id) : undefined;
    if (chat && !this.columns.length) this.open(chat);
    this.isRestored = true;
  }

  async list(): Promise<void> {
    const { chats, loss } = await all();
    this.chats = chats;
    this.loss = loss ?? this.loss;
  }

  /** Begin a new chat with the same models. */
  fresh(): void {
    this.#leave();
    this.id = identifier();
    keepOfTab('');
    this.title = '';
    this.columns = this.columns.map((each) => this.#column(each.model, []));
  }

  open(chat: Chat): void {
    this.#leave();
    this.id = chat.id;
    keepOfTab(chat.id);
    this.title = chat.title;
    this.parameters = { ...FREE, ...chat.parameters };
    this.columns = chat.columns.map((each) => this.#column(each.model, each.messages));
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
    await this.save();
    const messages = $state.snapshot(column.messages.slice(0, until + 1)) as Message[];
    const title = this.title;
    this.#leave();
    this.id = identifier();
    this.title = title;
    this.columns = [this.#column(column.model, messages)];
    await this.save();
  }

  async save(): Promise<void> {
    const first = this.columns.flatMap((each) => each.messages)[0];
    if (!first) return;
    this.title ||= titleOf(first.text);
    const columns = this.columns.map((each) => ({ model: each.model, messages: $state.snapshot(each.messages) as Message[] }));
    keepOfTab(this.id);
    await this.#keep({ id: this.id, title: this.title, updated: Date.now(), columns, parameters: $state.snapshot(this.parameters) });
    await this.list();
  }

  async rename(chat: Chat, title: string): Promise<void> {
    if (chat.id === this.id) this.title = title;
    await this.#keep({ ...chat, title });
    await this.list();
  }

  async remove(chat: Chat): Promise<void> {
    await forget(chat.id);
    if (chat.id === this.id) this.fresh();
    await this.list();
  }

  async take(chats: Chat[]): Promise<void> {
    for (const chat of chats) await this.#keep(chat);
    await this.list();
  }

  async #keep(chat: Chat): Promise<void> {
    this.loss = await keep(chat);
  }

  #leave(): void {
    for (const column of this.columns) column.stop();
  }

  #column(model: string, messages: Message[]): Conversation {
    const id = this.id;
    const column = new Conversation(model, () => {
      // An answer that was stopped because another chat was opened belongs to no open chat.
      if (this.id === id) void this.save();
    });
    column.messages = messages;
    return column;
  }
}

export const desk = new Desk();
