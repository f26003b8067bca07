function m(e){return e.kind==="embedding"?s(e):e.kind==="rerank"?a(e):l(e)}function i({server:e},o,n){return["curl",`curl ${e}${o} -H 'Content-Type: application/json' \\
  -d '${n}'`]}function c({server:e},o){return["Python (openai)",`import openai

client = openai.OpenAI(base_url="${e}/v1", api_key="none")
${o}`]}function r({server:e,uid:o},n){return["Python (xinference)",`from xinference.client import Client

model = Client("${e}").get_model("${o}")
${n}`]}function s(e){const{server:o,uid:n}=e;return[i(e,"/v1/embeddings",`{"model": "${n}", "input": ["a text"]}`),c(e,`print(client.embeddings.create(model="${n}", input=["a text"]).data[0].embedding)`),r(e,'print(model.create_embedding(["a text"]))'),["LangChain",`from langchain_openai import OpenAIEmbeddings

model = OpenAIEmbeddings(
    base_url="${o}/v1", api_key="none", model="${n}", check_embedding_ctx_length=False
)
print(model.embed_query("a text"))`]]}function a(e){return[i(e,"/v1/rerank",`{"model": "${e.uid}", "query": "a question", "documents": ["one", "two"]}`),r(e,'print(model.rerank(["one", "two"], "a question"))')]}function l(e){const{server:o,uid:n}=e;return[i(e,"/v1/chat/completions",`{"model": "${n}", "messages": [{"role": "user", "content": "Hello"}]}`),c(e,`answer = client.chat.completions.create(model="${n}", messages=[{"role": "user", "content": "Hello"}])
print(answer.choices[0].message.content)`),["JavaScript (openai)",`import OpenAI from 'openai';

const client = new OpenAI({ baseURL: '${o}/v1', apiKey: 'none' });
const answer = await client.chat.completions.create({
  model: '${n}',
  messages: [{ role: 'user', content: 'Hello' }],
});
console.log(answer.choices[0].message.content);`],["Python (anthropic)",`import anthropic

client = anthropic.Anthropic(base_url="${o}/anthropic", api_key="none")
answer = client.messages.create(model="${n}", max_tokens=100, messages=[{"role": "user", "content": "Hello"}])
print(answer.content[0].text)`],r(e,'print(model.chat([{"role": "user", "content": "Hello"}]))'),["LangChain",`from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url="${o}/v1", api_key="none", model="${n}")
print(model.invoke("Hello").content)`],["Terminal",`xinference chat ${n} --endpoint ${o}`]]}function d(e,o,n){const t=JSON.stringify(o,null,2);return e==="JSON"?t:e==="curl"?`curl -N ${n}/v1/chat/completions -H 'Content-Type: application/json' -d '${t.replaceAll("'","'\\''")}'`:e==="JavaScript"?`import OpenAI from 'openai';

const client = new OpenAI({ baseURL: '${n}/v1', apiKey: 'none' });
const stream = await client.chat.completions.create(${t});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');`:`import json

import openai

client = openai.OpenAI(base_url="${n}/v1", api_key="none")
body = json.loads(r'''
${t.replaceAll("'''","\\u0027''")}
''')
for chunk in client.post("/chat/completions", body=body, cast_to=object, stream=True, stream_cls=openai.Stream[object]):
    print(chunk)`}const p=1e4;function u(e){return JSON.parse(JSON.stringify(e,(n,t)=>typeof t=="string"&&t.length>p?`${t.slice(0,100)}… (${t.length} characters)`:t))}export{m as a,d as r,u as s};
