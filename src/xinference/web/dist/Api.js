import{B as Y,a5 as z,q as o,w as d,C as P,g as e,k as Q,i as j,n as f,o as r,l as x,x as m,G as $,L as X,M as v,E as Z,F as ee,V as te,a2 as ae,y as g,s as ne,b as oe}from"./app.js";var se=g("<option> </option>"),re=g("<label> <select></select></label>"),le=g('<p class="soft"> </p>'),ie=g('<section class="card"><div class="row between"><h2> </h2><!></div> <pre> </pre></section>'),ce=g('<div class="stack"><h1>API</h1> <div class="card stack"><p class="row"> <code> </code> <!></p> <p class="small soft"> <a href="../docs"> </a></p> <!></div> <!></div>');function de(q,D){Y(D,!0);const l=z(),u=v(()=>(Z.deployments??[]).filter(t=>t.status==="READY"));let b=ne("");const w=v(()=>e(u).find(t=>t.model_uid===e(b))??e(u)[0]??null),i=v(()=>e(w)?.model_uid??"MODEL"),k=v(()=>e(w)?.model_type??"LLM"),R=v(()=>e(k)==="embedding"?[["curl",`curl ${l}/v1/embeddings -H 'Content-Type: application/json' \\
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
${t}`}var H=ce(),L=o(d(H),2),O=d(L),C=d(O),I=o(C),T=m(I),B=o(I,2);{let t=v(()=>`${l}/v1`);P(B,{get text(){return e(t)}})}var M=o(O,2),E=d(M),U=o(E),F=m(U,!0),G=o(M,2);{var J=t=>{var a=re(),s=d(a),c=o(s);j(c,21,()=>e(u),n=>n.model_uid,(n,_)=>{var p=se(),y=m(p,!0),h={};f(()=>{r(y,e(_).model_uid),h!==(h=e(_).model_uid)&&(p.value=(p.__value=h)??"")}),x(n,p)}),ee(c),f(n=>r(s,`${n??""} `),[()=>$("Model")]),te(c,()=>e(b),n=>oe(b,n)),x(t,a)},K=t=>{var a=le(),s=m(a,!0);f(c=>r(s,c),[()=>$("No model is ready: put its name in place of MODEL.")]),x(t,a)};Q(G,t=>{e(u).length>1?t(J):e(u).length||t(K,1)})}var N=o(L,2);j(N,17,()=>e(R),([t,a])=>t,(t,a)=>{var s=v(()=>ae(e(a),2));let c=()=>e(s)[0],n=()=>e(s)[1];var _=ie(),p=d(_),y=d(p),h=m(y,!0),S=o(y);P(S,{get text(){return n()}});var V=o(p,2),W=m(V,!0);f(()=>{r(h,c()),r(W,n())}),x(t,_)}),f((t,a,s)=>{r(C,`${t??""} `),r(T,`${l??""}/v1`),r(E,`${a??""} `),r(F,s)},[()=>$("Base URL of OpenAI clients:"),()=>$('Where the server needs keys, put one in place of "none".'),()=>$("All routes")]),x(q,H),X()}export{de as default};
