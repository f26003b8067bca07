/** One conversation with one model: its messages, and the figures of each answer. */

import { ApiError, ownProblem, send, type Problem } from './api';
import { identifier } from './identifier';
import { events } from './sse';

export interface Figures {
  /** Seconds to the first piece of the answer. */
  first: number | null;
  /** Seconds of the whole answer. */
  total: number | null;
  prompt: number | null;
  cached: number | null;
  output: number;
  /** Whether the engine has counted the output tokens; else they are the pieces that arrived. */
  exact: boolean;
  finish: string | null;
}

export interface ToolCall {
  name: string;
  /** JSON, as the model has written it. */
  arguments: string;
}

export interface Message {
  role: 'user' | 'assistant';
  text: string;
  /** Images of the user, as addresses that contain them. */
  images: string[];
  thinking: string;
  tools: ToolCall[];
  figures: Figures | null;
  problem: Problem | null;
}

export interface Parameters {
  system: string;
  temperature: string;
  maxTokens: string;
  topP: string;
  seed: string;
  /** A JSON schema; empty: the answer is free. */
  schema: string;
  /** The tools that the model may call: a JSON list in OpenAI's form. */
  tools: string;
}

interface Chunk {
  choices?: {
    delta?: {
      content?: string | null;
      reasoning_content?: string | null;
      reasoning?: string | null;
      tool_calls?: { function?: { name?: string; arguments?: string } }[];
    };
    finish_reason?: string | null;
  }[];
  usage?: { prompt_tokens?: number; completion_tokens?: number; prompt_tokens_details?: { cached_tokens?: number } } | null;
  error?: { message?: string; code?: string | null };
}

/** Painting more often than this shows nothing more and costs the browser its time. */
const PAINT_MS = 100;
/** Later events of an answer are not kept for people to read. */
const MOST_EVENTS = 500;

/** A question was sent, a part of its answer was written, or the answer has ended. */
export type Moment = 'asked' | 'written' | 'ended';

export class Conversation {
  model = $state('');
  messages = $state<Message[]>([]);
  busy = $state(false);
  /** The body of the last request, and the events of its answer as they came. */
  request = $state.raw<Record<string, unknown> | null>(null);
  events = $state.raw<string[]>([]);
  #leave: AbortController | null = null;
  #id = '';

  #changed: (moment: Moment) => void;

  /** `changed` is called when the messages have changed. */
  constructor(model: string, changed: (moment: Moment) => void = () => undefined) {
    this.model = model;
    this.#changed = changed;
  }

  /** Stop the answer, and the engine's work on it. */
  stop(): void {
    if (!this.#leave) return;
    const answer = this.messages.at(-1);
    if (answer?.figures) answer.figures.finish = 'stopped'; // at once: the chat may be stored now
    const path = `/v1/models/${encodeURIComponent(this.model)}/requests/${this.#id}/abort`;
    void send(path, { method: 'POST', body: '{}' }).catch(() => undefined);
    this.#leave.abort();
  }

  /** Answer the last message again. */
  async again(parameters: Parameters): Promise<void> {
    while (this.messages.at(-1)?.role === 'assistant') this.messages.pop();
    const last = this.messages.pop();
    if (last) await this.ask(last.text, parameters, last.images);
  }

  /** Ask a changed message in place of an earlier one; what followed it is dropped. */
  async edit(index: number, text: string, parameters: Parameters): Promise<void> {
    const images = this.messages[index]?.images ?? [];
    this.messages = this.messages.slice(0, index);
    await this.ask(text, parameters, images);
  }

  /** Let the model write on at an answer that was cut. */
  async goOn(parameters: Parameters): Promise<void> {
    const answer = this.messages.at(-1);
    if (answer?.role !== 'assistant') return;
    await this.#answer(answer, { ...this.#body(parameters), continue_final_message: true, add_generation_prompt: false });
  }

  async ask(text: string, parameters: Parameters, images: string[] = []): Promise<void> {
    this.messages.push({ ...message('user', text), images });
    const asked = this.#body(parameters);
    this.messages.push(message('assistant', ''));
    await this.#answer(this.messages.at(-1) as Message, asked);
  }

  async #answer(answer: Message, asked: Record<string, unknown>): Promise<void> {
    this.request = asked;
    this.events = [];
    answer.problem = null;
    answer.figures = { first: null, total: null, prompt: null, cached: null, output: 0, exact: false, finish: null };
    this.busy = true;
    this.#leave = new AbortController();
    this.#id = identifier();
    const began = performance.now();
    this.#changed('asked');
    try {
      const response = await send('/v1/chat/completions', {
        method: 'POST',
        body: JSON.stringify(asked),
        headers: { 'x-request-id': this.#id },
        signal: this.#leave.signal,
      });
      await this.#read(response, answer, began);
    } catch (error) {
      if (error instanceof ApiError) answer.problem = error.problem;
      else if (!this.#leave.signal.aborted) answer.problem = brokenOff();
      else answer.figures.finish = 'stopped';
    }
    answer.figures.total = (performance.now() - began) / 1000;
    this.#leave = null;
    this.busy = false;
    this.#changed('ended');
  }

  async #read(response: Response, answer: Message, began: number): Promise<void> {
    // Copies: each change of the message itself would be painted.
    const { figures, tools } = $state.snapshot(answer) as Message & { figures: Figures };
    let { text, thinking } = answer;
    let painted = 0;
    const came: string[] = [];
    const paint = (): void => {
      answer.text = text;
      answer.thinking = thinking;
      answer.figures = { ...figures };
      if (tools.length) answer.tools = tools.map((each) => ({ ...each }));
      this.events = [...came];
      painted = performance.now();
      this.#changed('written');
    };
    try {
      for await (const data of events(response)) {
        if (came.length < MOST_EVENTS) came.push(data);
        if (data === '[DONE]') break;
        const chunk = JSON.parse(data) as Chunk;
        if (chunk.error) {
          const { message: cause, code } = chunk.error;
          answer.problem = cause ? { code: code ?? null, status: 200, cause, hint: null } : ownProblem('The answer broke off.', code);
          break;
        }
        if (chunk.usage) count(figures, chunk.usage);
        for (const choice of chunk.choices ?? []) {
          const delta = choice.delta ?? {};
          const piece = delta.content ?? '';
          const thought = delta.reasoning_content ?? delta.reasoning ?? '';
          text += piece;
          thinking += thought;
          for (const call of delta.tool_calls ?? []) addCall(tools, call.function ?? {});
          if (piece || thought || delta.tool_calls) {
            figures.first ??= (performance.now() - began) / 1000;
            if (!figures.exact) figures.output += 1;
          }
          if (choice.finish_reason) figures.finish = choice.finish_reason;
        }
        figures.total = (performance.now() - began) / 1000;
        if (performance.now() - painted > PAINT_MS) paint();
      }
    } finally {
      paint(); // also what came before a stop
    }
    if (!figures.finish && !answer.problem) answer.problem = brokenOff();
  }

  #body(parameters: Parameters): Record<string, unknown> {
    const messages = this.messages
      .filter((each) => each.text || each.role === 'user')
      .map((each) => ({ role: each.role, content: contentOf(each) }));
    const system = parameters.system.trim();
    return {
      model: this.model,
      messages: system ? [{ role: 'system', content: system }, ...messages] : messages,
      stream: true,
      stream_options: { include_usage: true },
      ...(parameters.temperature ? { temperature: Number(parameters.temperature) } : {}),
      ...(parameters.maxTokens ? { max_tokens: Number(parameters.maxTokens) } : {}),
      ...(parameters.seed ? { seed: Number(parameters.seed) } : {}),
      ...(parameters.schema.trim() ? { response_format: schemaFormat(parameters.schema) } : {}),
      ...(parameters.tools.trim() ? { tools: JSON.parse(parameters.tools) as unknown } : {}),
      ...(parameters.topP ? { top_p: Number(parameters.topP) } : {}),
    };
  }
}

function message(role: Message['role'], text: string): Message {
  return { role, text, images: [], thinking: '', tools: [], figures: null, problem: null };
}

function contentOf(each: Message): unknown {
  if (!each.images.length) return each.text;
  return [...each.images.map((url) => ({ type: 'image_url', image_url: { url } })), { type: 'text', text: each.text }];
}

function schemaFormat(schema: string): unknown {
  return { type: 'json_schema', json_schema: { name: 'answer', schema: JSON.parse(schema) as unknown } };
}

/** Whether the page is about to end: the browser then breaks off its requests. */
let isLeaving = false;
addEventListener('pagehide', () => (isLeaving = true));
addEventListener('pageshow', () => (isLeaving = false));

function brokenOff(): Problem {
  return isLeaving
    ? ownProblem('The answer broke off: its page was closed or reloaded.')
    : ownProblem('The answer broke off: the connection to the server was lost.');
}

/** Say of an answer that was being written when its page ended that it broke off. */
export function markBroken(messages: Message[]): Message[] {
  const last = messages.at(-1);
  if (last?.role !== 'assistant' || !last.figures || last.figures.finish || last.problem) return messages;
  return [...messages.slice(0, -1), { ...last, problem: ownProblem('The answer broke off: its page was closed or reloaded.') }];
}

function count(figures: Figures, usage: NonNullable<Chunk['usage']>): void {
  figures.prompt = usage.prompt_tokens ?? null;
  figures.cached = usage.prompt_tokens_details?.cached_tokens ?? null;
  if (usage.completion_tokens !== undefined) {
    figures.output = usage.completion_tokens;
    figures.exact = true;
  }
}

function addCall(tools: ToolCall[], call: { name?: string; arguments?: string }): void {
  if (call.name || !tools.length) tools.push({ name: call.name ?? '', arguments: '' });
  const last = tools.at(-1) as ToolCall;
  last.arguments += call.arguments ?? '';
}

/** Output tokens in each second after the first one. */
export function speed(figures: Figures): number | null {
  if (figures.first === null || figures.total === null || figures.output < 2) return null;
  const took = figures.total - figures.first;
  return took > 0 ? (figures.output - 1) / took : null;
}
