/** Chats that this browser keeps; they are sent to no server but the model's. */

import type { Message, Parameters } from './conversation.svelte';

export interface Chat {
  id: string;
  title: string;
  /** Milliseconds since the epoch. */
  updated: number;
  columns: { model: string; messages: Message[] }[];
  parameters: Parameters;
}

/** Why the browser does not store a chat: it stores nothing, as in a private window, or its storage is full. */
export type Loss = 'forbidden' | 'full';

const STORE = 'chats';
/** Chats that the browser does not store; they last as long as the page. */
const unstored = new Map<string, Chat>();

let opened: Promise<IDBDatabase> | undefined;
/** The open database: a page that is about to end has no time to wait for it. */
let base: IDBDatabase | null = null;

/** Open the database, so that the first chat is stored without a wait. */
export function prepare(): void {
  void database().catch(() => undefined);
}

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    // Servers at several paths of one address have chats of their own.
    const request = indexedDB.open(`xinference ${location.pathname}`, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
    request.onsuccess = () => resolve((base = request.result));
    request.onerror = () => reject(request.error ?? new Error('indexedDB'));
  });
  return opened;
}

async function run<T>(mode: IDBTransactionMode, what: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const transaction = (base ?? (await database())).transaction(STORE, mode);
  const request = what(transaction.objectStore(STORE));
  // Else the browser drops what it was given when the page ends before it has answered.
  if (mode === 'readwrite') transaction.commit();
  return new Promise((resolve, reject) => {
    // A full disk fails the transaction, not the request.
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error ?? request.error ?? new Error('indexedDB'));
  });
}

function lossOf(error: unknown): Loss {
  return error instanceof DOMException && error.name === 'QuotaExceededError' ? 'full' : 'forbidden';
}

/** All chats, the last one first, and why the browser stores none. */
export async function all(): Promise<{ chats: Chat[]; loss: Loss | null }> {
  let stored: Chat[] = [];
  let loss: Loss | null = null;
  try {
    stored = await run<Chat[]>('readonly', (store) => store.getAll());
  } catch (error) {
    loss = lossOf(error);
  }
  const chats = [...stored.filter((each) => !unstored.has(each.id)), ...unstored.values()];
  return { chats: chats.sort((a, b) => b.updated - a.updated), loss };
}

/** Store a chat; why the browser does not, else null. */
export async function keep(chat: Chat): Promise<Loss | null> {
  try {
    await run('readwrite', (store) => store.put(chat));
    unstored.delete(chat.id);
    return null;
  } catch (error) {
    unstored.set(chat.id, chat);
    return lossOf(error);
  }
}

export function isStored(chat: Chat): boolean {
  return !unstored.has(chat.id);
}

export async function forget(id: string): Promise<void> {
  unstored.delete(id);
  await run('readwrite', (store) => store.delete(id)).catch(() => undefined);
}

/** The chats of a file that this page has saved; null if it is another file. */
export function imported(text: string): Chat[] | null {
  try {
    const chats: unknown = JSON.parse(text);
    return Array.isArray(chats) && chats.every(isChat) ? chats : null;
  } catch {
    return null;
  }
}

function isChat(value: unknown): value is Chat {
  const chat = value as Partial<Chat> | null;
  return (
    typeof chat?.id === 'string' &&
    typeof chat.title === 'string' &&
    typeof chat.updated === 'number' &&
    typeof chat.parameters === 'object' &&
    Array.isArray(chat.columns) &&
    chat.columns.every((each) => typeof each?.model === 'string' && Array.isArray(each.messages) && each.messages.every(isMessage))
  );
}

function isMessage(value: unknown): value is Message {
  const message = value as Partial<Message> | null;
  const lists = [message?.images, message?.tools];
  return (message?.role === 'user' || message?.role === 'assistant') && typeof message.text === 'string' && lists.every(Array.isArray);
}

/** The title of a chat that has none: the beginning of its first message. */
export function titleOf(text: string): string {
  const line = text.trim().split('\n')[0] ?? '';
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
