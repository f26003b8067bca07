import{r as F,W as Q,l as o,n as d,C as P,g as e,d as V,e as T,j as f,k as r,h as $,o as m,y as g,G as X,H as v,I as Z,w as ee,z as te,T as ae,q as x,s as ne,a as oe}from"./app.js";var se=x("<option> </option>"),re=x("<label> <select></select></label>"),le=x('<p class="soft"> </p>'),ie=x('<section class="card"><div class="row between"><h2> </h2><!></div> <pre> </pre></section>'),ce=x('<div class="stack"><h1>API</h1> <div class="card stack"><p class="row"> <code> </code> <!></p> <p class="small soft"> <a href="../docs"> </a></p> <!></div> <!></div>');function de(q,D){F(D,!0);const l=Q(),u=v(()=>(Z.deployments??[]).filter(t=>t.status==="READY"));let b=ne("");const w=v(()=>e(u).find(t=>t.model_uid===e(b))??e(u)[0]??null),i=v(()=>e(w)?.model_uid??"MODEL"),k=v(()=>e(w)?.model_type??"LLM"),E=v(()=>e(k)==="embedding"?[["curl",`curl ${l}/v1/embeddings -H 'Content-Type: application/json' \\
  -d '{"model": "${e(i)}", "input": ["a text"]}'`],["Python (openai)",A(`print(client.embeddings.create(model="${e(i)}", input=["a text"]).data[0].embedding)`)]]:e(k)==="rerank"?[["curl",`curl ${l}/v1/rerank -H 'Content-Type: application/json' \\
  -d '{"model": "${e(i)}", "query": "a question", "documents": ["one", "two"]}'`]]:[["curl",`curl ${l}/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"model": "${e(i)}", "messages": [{"role": "user", "content": "Hello"}]}'`],["Python (openai)",A(`answer = client.chat.completions.create(model="${e(i)}", messages=[{"role": "user", "content": "Hello"}])
print(answer.choices[0].message.content)`)],["JavaScript (openai)",`import OpenAI from 'openai';

const client = new OpenAI({ baseURL: '${l}/v1', apiKey: 'none' });
const answer = await client.chat.completions.create({
  model: '${e(i)}',
  messages: [{ role: 'user', content: 'Hello' }],
});
console.log(answer.choices[0].message.content);`],["Python (anthropic)",`import anthropic

client = anthropic.Anthropic(base_url="${l}/anthropic", api_key="none")
answer = client.messages.create(model="${e(i)}", max_tokens=100, messages=[{"role": "user", "content": "Hello"}])
print(answer.content[0].text)`]]);function A(t){return`import openai

client = openai.OpenAI(base_url="${l}/v1", api_key="none")
${t}`}var H=ce(),I=o(d(H),2),L=d(I),O=d(L),C=o(O),R=m(C),U=o(C,2);{let t=v(()=>`${l}/v1`);P(U,{get text(){return e(t)}})}var j=o(L,2),M=d(j),W=o(M),z=m(W,!0),B=o(j,2);{var G=t=>{var a=re(),s=d(a),c=o(s);T(c,21,()=>e(u),n=>n.model_uid,(n,_)=>{var p=se(),y=m(p,!0),h={};f(()=>{r(y,e(_).model_uid),h!==(h=e(_).model_uid)&&(p.value=(p.__value=h)??"")}),$(n,p)}),ee(c),f(n=>r(s,`${n??""} `),[()=>g("Model")]),te(c,()=>e(b),n=>oe(b,n)),$(t,a)},J=t=>{var a=le(),s=m(a,!0);f(c=>r(s,c),[()=>g("No model is ready: put its name in place of MODEL.")]),$(t,a)};V(B,t=>{e(u).length>1?t(G):e(u).length||t(J,1)})}var K=o(I,2);T(K,17,()=>e(E),([t,a])=>t,(t,a)=>{var s=v(()=>ae(e(a),2));let c=()=>e(s)[0],n=()=>e(s)[1];var _=ie(),p=d(_),y=d(p),h=m(y,!0),N=o(y);P(N,{get text(){return n()}});var S=o(p,2),Y=m(S,!0);f(()=>{r(h,c()),r(Y,n())}),$(t,_)}),f((t,a,s)=>{r(O,`${t??""} `),r(R,`${l??""}/v1`),r(M,`${a??""} `),r(z,s)},[()=>g("Base URL of OpenAI clients:"),()=>g('Where the server needs keys, put one in place of "none".'),()=>g("All routes")]),$(q,H),X()}export{de as default};
