import{v as Y,a0 as z,m as o,o as d,C as P,g as e,h as Q,d as q,k as f,l as r,j as x,q as m,y as $,F as V,G as v,w as Z,x as ee,N as te,X as ae,r as g,s as ne,a as oe}from"./app.js";var se=g("<option> </option>"),re=g("<label> <select></select></label>"),le=g('<p class="soft"> </p>'),ie=g('<section class="card"><div class="row between"><h2> </h2><!></div> <pre> </pre></section>'),ce=g('<div class="stack"><h1>API</h1> <div class="card stack"><p class="row"> <code> </code> <!></p> <p class="small soft"> <a href="../docs"> </a></p> <!></div> <!></div>');function de(D,E){Y(E,!0);const l=z(),u=v(()=>(Z.deployments??[]).filter(t=>t.status==="READY"));let b=ne("");const w=v(()=>e(u).find(t=>t.model_uid===e(b))??e(u)[0]??null),i=v(()=>e(w)?.model_uid??"MODEL"),k=v(()=>e(w)?.model_type??"LLM"),R=v(()=>e(k)==="embedding"?[["curl",`curl ${l}/v1/embeddings -H 'Content-Type: application/json' \\
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
${t}`}var H=ce(),L=o(d(H),2),O=d(L),C=d(O),I=o(C),T=m(I),N=o(I,2);{let t=v(()=>`${l}/v1`);P(N,{get text(){return e(t)}})}var j=o(O,2),M=d(j),U=o(M),B=m(U,!0),F=o(j,2);{var G=t=>{var a=re(),s=d(a),c=o(s);q(c,21,()=>e(u),n=>n.model_uid,(n,_)=>{var p=se(),y=m(p,!0),h={};f(()=>{r(y,e(_).model_uid),h!==(h=e(_).model_uid)&&(p.value=(p.__value=h)??"")}),x(n,p)}),ee(c),f(n=>r(s,`${n??""} `),[()=>$("Model")]),te(c,()=>e(b),n=>oe(b,n)),x(t,a)},J=t=>{var a=le(),s=m(a,!0);f(c=>r(s,c),[()=>$("No model is ready: put its name in place of MODEL.")]),x(t,a)};Q(F,t=>{e(u).length>1?t(G):e(u).length||t(J,1)})}var K=o(L,2);q(K,17,()=>e(R),([t,a])=>t,(t,a)=>{var s=v(()=>ae(e(a),2));let c=()=>e(s)[0],n=()=>e(s)[1];var _=ie(),p=d(_),y=d(p),h=m(y,!0),S=o(y);P(S,{get text(){return n()}});var W=o(p,2),X=m(W,!0);f(()=>{r(h,c()),r(X,n())}),x(t,_)}),f((t,a,s)=>{r(C,`${t??""} `),r(T,`${l??""}/v1`),r(M,`${a??""} `),r(B,s)},[()=>$("Base URL of OpenAI clients:"),()=>$('Where the server needs keys, put one in place of "none".'),()=>$("All routes")]),x(D,H),V()}export{de as default};
