import { describe, expect, test } from 'vitest';
import { addressOf, body, chosenBy, commandLine, python } from './command';
import { completionTokens } from './completion';
import { fill } from './fill';
import { bytes, clock, count, moment, seconds, size } from './format';
import { directionOf } from './direction';
import { tree, type Node } from './markdown';
import { counted, devicesOf, shareOf } from './memory';
import type { Devices, Plan, PlannedPlace } from './api';
import { roomsOf } from './rooms';
import { shortened } from './samples';
import { csv } from './records';
import { codeOf } from './session.svelte';
import { matches } from './search';
import { parse } from './sse';
import { change, NOTHING, snapshot } from './state';
import { cosine } from './vectors';
import { delay } from './watch';

const launch = { model_name: "o'neil/x y", model_type: null, model_size_in_billions: '0_5', replica: 2, n_ctx: 4096, flag: true };

describe('a launch', () => {
  test('has its adapters as options of the line and as lines of the form', () => {
    const adapted = { model_name: 'm', lora_modules: { a: '/x', 'b c': '/y z' } };
    expect(commandLine(adapted)).toBe("xinference launch --model-name m --lora-modules a /x --lora-modules 'b c' '/y z'");
    expect(new URLSearchParams(addressOf(adapted).split('?')[1]).get('lora')).toBe('a=/x\nb c=/y z');
  });

  test('is a line for the terminal', () => {
    expect(commandLine(launch)).toBe(
      "xinference launch --model-name 'o'\\''neil/x y' --size-in-billions 0.5 --replica 2 --n_ctx 4096 --flag true",
    );
  });
  test('has no empty fields', () => {
    expect(body({ a: '', b: null, c: undefined, d: 0 })).toEqual({ d: 0 });
  });
  test('is a call of the client', () => {
    expect(python({ model_name: 'a', flag: true }, 'http://h')).toContain('launch_model(\n    model_name="a",\n    flag=True,\n)');
  });
  test('loses a download that is complete', () => {
    const state = { ...NOTHING };
    change(state, 'download', { cache_uid: 'v', stage: 'downloading' });
    expect(state.downloads).toHaveLength(1);
    change(state, 'download', { cache_uid: 'v', stage: 'ready' });
    expect(state.downloads).toEqual([]);
  });

  test('is read from a suggestion', () => {
    const line = 'xinference launch q -s 14B -f ggufv2 -q Q4_K_M --n_ctx 512';
    expect(chosenBy(line)).toEqual({ size: '14B', format: 'ggufv2', quantization: 'Q4_K_M', context: '512' });
  });
});

test('numbers are written as people read them', () => {
  expect([0, 1023, 1536, 5 * 1024 ** 2, 15.3 * 1024 ** 3].map(bytes)).toEqual(['0 B', '1023 B', '2 KiB', '5.0 MiB', '15 GiB']);
  expect([0.25, 3, 600, 7300, 400000].map(seconds)).toEqual(['250 ms', '3.0 s', '10 min', '2 h 1 min', '4 d']);
  expect(['0_135', 7, null, 0].map(size)).toEqual(['0.135B', '7B', '', '']);
});

test('events have their id, name and data without the comments', () => {
  expect(parse('data: {"a":1}')).toEqual({ id: null, event: 'message', data: '{"a":1}' });
  expect(parse(': ping')).toBeNull();
  expect(parse('retry: 2000')).toBeNull();
  expect(parse('id: 5f-1\nevent: x\ndata:a\ndata: b')).toEqual({ id: '5f-1', event: 'x', data: 'a\nb' });
});

describe('the state of the server', () => {
  const of = (...events: [string, object][]) => {
    const state = { ...NOTHING };
    for (const [name, data] of events) change(state, name, data as Record<string, unknown>);
    return state;
  };
  test('begins with a snapshot, and each change replaces what it names', () => {
    const state = of(
      ['snapshot', { models: [{ model_uid: 'a', status: 'LOADING' }, { model_uid: 'b' }], launches: [{ model_uid: 'a' }] }],
      ['model', { model_uid: 'a', status: 'READY' }],
      ['launch_removed', { model_uid: 'a' }],
      ['model', { model_uid: 'c' }],
      ['model_removed', { model_uid: 'b' }],
      ['a_later_event', {}],
    );
    expect(state.deployments).toEqual([{ model_uid: 'a', status: 'READY' }, { model_uid: 'c' }]);
    expect([state.launches, state.downloads, state.stats]).toEqual([[], null, null]);
  });
  test('forgets the requests of a key when they have ended', () => {
    const active = { key_id: 'k', requests: [{ id: 1 }] };
    expect(of(['snapshot', {}], ['active', active]).active).toEqual([active]);
    expect(of(['snapshot', { requests: [active] }], ['active', { key_id: 'k', requests: [] }]).active).toEqual([]);
  });
  test('is the same after its own snapshot', () => {
    const state = of(['snapshot', { models: [{ model_uid: 'a' }], downloads: [], devices: { gpus: [] } }]);
    expect(of(['snapshot', snapshot(state)])).toEqual(state);
  });
});

test('the wait before a connection doubles up to 10 s', () => {
  expect([0, 1, 2, 3, 5, 6, 60].map(delay)).toEqual([0, 500, 1000, 2000, 8000, 10000, 10000]);
});

function all(nodes: Node[]): Node[] {
  return nodes.flatMap((node) => [
    node,
    ...('inner' in node ? all(node.inner) : []),
    ...(node.kind === 'list' ? node.items.flatMap(all) : []),
  ]);
}

test.each([
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '![x](https://example.com/a.png)',
  '[x](javascript:alert(1))',
  '[x](data:text/html,<script>alert(1)</script>)',
  '[x](//example.com)',
  '[x](#/keys)',
  '<svg onload=alert(1)>',
])('hostile text %s stays text', (text) => {
  expect(all(tree(text)).filter((node) => node.kind === 'link')).toEqual([]);
  expect(JSON.stringify(tree(text))).toContain('text');
});

test('a link shows its host', () => {
  expect(all(tree('[a](https://example.com/x)'))).toContainEqual(expect.objectContaining({ kind: 'link', host: 'example.com' }));
});

test('a link whose text is its address does not repeat its host', () => {
  expect(all(tree('https://example.com/x'))).toContainEqual(expect.objectContaining({ kind: 'link', host: '' }));
});

test.each([
  ['\\(a_1 * b_2 * c\\)', 'code', 'a_1 * b_2 * c'],
  ['$a_1 + b_1 = c_1$', 'code', 'a_1 + b_1 = c_1'],
  ['So:\n\\[ \\int_0^1 x\\,dx \\]\nDone.', 'block', '\\int_0^1 x\\,dx'],
  ['$$\nx \\* y\n$$', 'block', 'x \\* y'],
])('the formula %s keeps its marks', (text, kind, formula) => {
  expect(all(tree(text))).toContainEqual(expect.objectContaining({ kind, text: formula }));
});

test.each(['It costs $5 and $10.', 'from $5-$10', '\\$a_1\\$', 'a line with \\[ and no end', '$$'])('%s is no formula', (text) => {
  expect(all(tree(text)).filter((node) => node.kind === 'code' || node.kind === 'block')).toEqual([]);
});

test.each([
  ['Hello שלום', 'ltr'],
  ['', 'ltr'],
  ['12. שלום hello', 'rtl'],
  ['«مرحبا»', 'rtl'],
])('the direction of %s is %s', (text, direction) => {
  expect(directionOf(text)).toBe(direction);
});

test('the boxes of a list of tasks are ticked or empty', () => {
  expect(JSON.stringify(tree('- [x] done\n- [ ] open'))).toMatch(/☑ .*done.*☐ .*open/);
});

test('a table keeps the alignment of its columns', () => {
  expect(tree('|a|b|\n|:-:|--:|\n|1|2|')).toContainEqual(expect.objectContaining({ kind: 'table', align: ['center', 'right'] }));
});

test('a table for spreadsheets has no formula and keeps its commas', () => {
  const record = {
    ...{ id: 'a', started: 0, key: '=1+1', model: 'a,"b"', replica: null, path: '/x', stream: true, first_token: 0.5 },
    ...{ output_tokens: 3, status: 200, code: null, client_left: false, tokens_per_second: 2, total: 1, prompt_tokens: 4 },
    ...{ cached_tokens: 0, exact: true, waited: { load: 1, recovery: 0, permit: 0, quota: 0 } },
  };
  expect(csv([record]).split('\r\n')[1]).toBe(`a,1970-01-01T00:00:00.000Z,'=1+1,"a,""b""",,/x,true,200,,1,0.5,1,4,0,3,true,2`);
});

test('a code of the address is read only where it is the whole address', () => {
  expect(codeOf('#code=abc-_1')).toBe('abc-_1');
  expect([codeOf('#/chat'), codeOf('#code='), codeOf('#/x?code=1'), codeOf('#code=<b>')]).toEqual([null, null, null, null]);
});

test('the cosine of vectors', () => {
  expect(cosine([1, 0], [1, 0])).toBeCloseTo(1);
  expect(cosine([1, 0], [0, 2])).toBeCloseTo(0);
  expect(cosine([0, 0], [1, 1])).toBe(0);
});

test('a completion has at most half of a small context', () => {
  expect([100, 512, 8192, null].map(completionTokens)).toEqual([50, 256, 256, 256]);
});

test('a request for people to read has the beginning and the length of an image only', () => {
  const shown = JSON.stringify(shortened({ model: 'm', messages: [{ role: 'user', content: [{ url: `data:${'x'.repeat(20_000)}` }] }] }));
  expect(shown.length).toBeLessThan(300);
  expect(shown).toContain('20005 characters');
});

test('each replica of a plan takes its part of the GPUs that it is on', () => {
  const groups = [[0, 1], [2], [2]];
  expect([0, 1, 2, 3].map((each) => shareOf(groups, each))).toEqual([0.5, 0.5, 2, 0]);
});

test('the devices of workers follow those of this machine, and a lost worker has none', () => {
  const host = { name: 'CPU', cores: 2, total: 8, free: 4, control_group: null, owners: [] };
  const gpu = { index: 0, name: 'H200', uuid: 'u', total: 9, free: 9, owners: [] };
  const worker = { node: 'n1', name: 'second', state: 'READY', host, gpus: [gpu], disks: [] };
  const lost = { ...worker, node: 'n2', name: 'third', state: 'LOST', host: null, gpus: [] };
  const devices: Devices = { node: 'local', host, gpus: [gpu], no_gpu_reason: null, disks: [], workers: [worker, lost] };
  expect(devicesOf(devices, 'Memory').map((each) => each.name)).toEqual(['GPU 0 H200', 'Memory', 'second: GPU 0 H200', 'second: Memory']);
});

test('a number has commas between its thousands, as the browser would write it', () => {
  for (const value of [0, 7, 999, 1000, 32768, 1048576, -1234567, 1234.5, 12345.67891]) {
    expect(count(value)).toBe(value.toLocaleString('en-US'));
  }
});

test('a time has its date if that is not today', () => {
  const at = new Date(2026, 10, 30, 4, 5, 9);
  expect(clock(at.getTime() / 1000, at.getTime())).toBe('04:05:09');
  expect(clock(at.getTime() / 1000, at.getTime() + 86_400_000)).toBe('2026-11-30 04:05:09');
  expect(moment(at.getTime() / 1000)).toBe('2026-11-30 04:05');
});

test('a text has the form of its number', () => {
  const text = '{n} {n:model|models} of {name}';
  expect([0, 1, 2].map((n) => fill(text, { n, name: 'x' }))).toEqual(['0 models of x', '1 model of x', '2 models of x']);
});

describe('the devices of a plan', () => {
  const host = { name: null, cores: 8, total: 100, free: 40, control_group: null, owners: [] };
  const gpu = (index: number) => ({ index, name: 'H200', uuid: `GPU-${index}`, total: 1000, free: 900, owners: [] });
  const devices: Devices = {
    ...{ node: 'local', host, gpus: [], no_gpu_reason: 'none is found', disks: [] },
    workers: [
      { node: 'n1', name: 'first', state: 'ready', host, gpus: [gpu(0)], disks: [] },
      { node: 'n2', name: 'second', state: 'ready', host, gpus: [gpu(0), gpu(1)], disks: [] },
    ],
  };
  const planned = (places: PlannedPlace[], saved_states = 0): Plan => ({ places, memory: { saved_states } }) as unknown as Plan;
  const shown = (plan: Plan, all: Devices = devices) => roomsOf(plan, all, 'Memory').map((each) => [each.name, each.share, each.states]);

  test('are those of the nodes on which it places replicas', () => {
    expect(shown(planned([{ replica: 0, rank: 0, node: 'n2', devices: [0, 1] }]))).toEqual([
      ['second: GPU 0 H200', 0.5, 0],
      ['second: GPU 1 H200', 0.5, 0],
    ]);
    expect(shown(planned([{ replica: 0, rank: 0, node: 'n1', devices: [] }]))).toEqual([['first: Memory', 1, 0]]);
  });

  test('have a replica of each node that computes one together with others', () => {
    const ranks = [0, 1].map((rank) => ({ replica: 0, rank, node: `n${rank + 1}`, devices: [0] }));
    expect(shown(planned(ranks))).toEqual([
      ['first: GPU 0 H200', 1, 0],
      ['second: GPU 0 H200', 1, 0],
      ['second: GPU 1 H200', 0, 0],
    ]);
  });

  test('have the memory of the host for the saved states of a model on GPUs', () => {
    const two = [0, 1].map((replica) => ({ replica, rank: 0, node: 'n2', devices: [replica] }));
    expect(shown(planned(two, 5)).at(-1)).toEqual(['second: Memory', 0, 2]);
  });

  test('are the memory of a machine without a cluster where no place is chosen', () => {
    expect(shown(planned([]), { ...devices, workers: [] })).toEqual([['Memory', 0, 0]]);
    expect(shown(planned([]))).toEqual([]);
  });
});

test('equal GPUs of a machine are one entry with their number', () => {
  expect(counted(['H200', 'L4', 'H200'])).toBe('2 × H200, L4');
  expect(counted([])).toBe('');
});

test('a search finds a part of a row in upper or lower case, without the spaces around it', () => {
  expect(matches(' QWEN ', null, 'a qwen3')).toBe(true);
  expect(matches('', undefined)).toBe(true);
  expect(matches('llama', 'qwen3', null)).toBe(false);
});
