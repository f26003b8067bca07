/** Examples of requests to a model, for people to copy. */

export interface Target {
  /** The address of the server, without a slash at its end. */
  server: string;
  uid: string;
  kind: string;
}

/** The examples for a model of this kind: name and text. */
export function samples(target: Target): [string, string][] {
  if (target.kind === 'embedding') return embeddings(target);
  return target.kind === 'rerank' ? ranks(target) : chats(target);
}

function curl({ server }: Target, path: string, body: string): [string, string] {
  return ['curl', `curl ${server}${path} -H 'Content-Type: application/json' \\\n  -d '${body}'`];
}

function openai({ server }: Target, call: string): [string, string] {
  return ['Python (openai)', `import openai\n\nclient = openai.OpenAI(base_url="${server}/v1", api_key="none")\n${call}`];
}

function client({ server, uid }: Target, call: string): [string, string] {
  return ['Python (xinference)', `from xinference.client import Client\n\nmodel = Client("${server}").get_model("${uid}")\n${call}`];
}

function embeddings(target: Target): [string, string][] {
  const { server, uid } = target;
  return [
    curl(target, '/v1/embeddings', `{"model": "${uid}", "input": ["a text"]}`),
    openai(target, `print(client.embeddings.create(model="${uid}", input=["a text"]).data[0].embedding)`),
    client(target, 'print(model.create_embedding(["a text"]))'),
    [
      'LangChain',
      `from langchain_openai import OpenAIEmbeddings\n\nmodel = OpenAIEmbeddings(\n    base_url="${server}/v1", api_key="none", model="${uid}", check_embedding_ctx_length=False\n)\nprint(model.embed_query("a text"))`,
    ],
  ];
}

function ranks(target: Target): [string, string][] {
  return [
    curl(target, '/v1/rerank', `{"model": "${target.uid}", "query": "a question", "documents": ["one", "two"]}`),
    client(target, 'print(model.rerank(["one", "two"], "a question"))'),
  ];
}

function chats(target: Target): [string, string][] {
  const { server, uid } = target;
  return [
    curl(target, '/v1/chat/completions', `{"model": "${uid}", "messages": [{"role": "user", "content": "Hello"}]}`),
    openai(
      target,
      `answer = client.chat.completions.create(model="${uid}", messages=[{"role": "user", "content": "Hello"}])\nprint(answer.choices[0].message.content)`,
    ),
    [
      'JavaScript (openai)',
      `import OpenAI from 'openai';\n\nconst client = new OpenAI({ baseURL: '${server}/v1', apiKey: 'none' });\nconst answer = await client.chat.completions.create({\n  model: '${uid}',\n  messages: [{ role: 'user', content: 'Hello' }],\n});\nconsole.log(answer.choices[0].message.content);`,
    ],
    [
      'Python (anthropic)',
      `import anthropic\n\nclient = anthropic.Anthropic(base_url="${server}/anthropic", api_key="none")\nanswer = client.messages.create(model="${uid}", max_tokens=100, messages=[{"role": "user", "content": "Hello"}])\nprint(answer.content[0].text)`,
    ],
    client(target, 'print(model.chat([{"role": "user", "content": "Hello"}]))'),
    [
      'LangChain',
      `from langchain_openai import ChatOpenAI\n\nmodel = ChatOpenAI(base_url="${server}/v1", api_key="none", model="${uid}")\nprint(model.invoke("Hello").content)`,
    ],
    ['Terminal', `xinference chat ${uid} --endpoint ${server}`],
  ];
}

/** The same request as another client sends it. */
export function requestAs(form: 'curl' | 'Python' | 'JavaScript' | 'JSON', body: Record<string, unknown>, server: string): string {
  const json = JSON.stringify(body, null, 2);
  if (form === 'JSON') return json;
  if (form === 'curl') return `curl -N ${server}/v1/chat/completions -H 'Content-Type: application/json' -d '${json.replaceAll("'", `'\\''`)}'`;
  if (form === 'JavaScript') {
    return `import OpenAI from 'openai';\n\nconst client = new OpenAI({ baseURL: '${server}/v1', apiKey: 'none' });\nconst stream = await client.chat.completions.create(${json});\nfor await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');`;
  }
  return `import json\n\nimport openai\n\nclient = openai.OpenAI(base_url="${server}/v1", api_key="none")\nbody = json.loads(r'''\n${json.replaceAll("'''", "\\u0027''")}\n''')\nfor chunk in client.post("/chat/completions", body=body, cast_to=object, stream=True, stream_cls=openai.Stream[object]):\n    print(chunk)`;
}

/** Characters of the longest text of a request that is shown whole. */
const LONGEST = 10_000;

/** A request for people to read: of a very long text, such as an image, its beginning and its length. */
export function shortened(request: Record<string, unknown>): Record<string, unknown> {
  const short = (_name: string, value: unknown): unknown =>
    typeof value === 'string' && value.length > LONGEST ? `${value.slice(0, 100)}… (${value.length} characters)` : value;
  return JSON.parse(JSON.stringify(request, short)) as Record<string, unknown>;
}
