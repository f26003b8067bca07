import{f as G,a3 as Q,h as o,l as d,E as M,g as e,i as V,j as P,t as f,r,k as $,z as m,n as g,y as X,H as v,J as Z,K as ee,T as te,_ as ae,B as x,s as ne,a as oe}from"./app.js";var se=x("<option> </option>"),re=x("<label> <select></select></label>"),le=x('<p class="soft"> </p>'),ie=x('<section class="card"><div class="row between"><h2> </h2><!></div> <pre> </pre></section>'),ce=x('<div class="stack"><h1>API</h1> <div class="card stack"><p class="row"> <code> </code> <!></p> <p class="small soft"> <a href="../docs"> </a></p> <!></div> <!></div>');function de(T,D){G(D,!0);const l=Q(),u=v(()=>(Z.deployments??[]).filter(t=>t.status==="READY"));let b=ne("");const w=v(()=>e(u).find(t=>t.model_uid===e(b))??e(u)[0]??null),i=v(()=>e(w)?.model_uid??"MODEL"),k=v(()=>e(w)?.model_type??"LLM"),R=v(()=>e(k)==="embedding"?[["curl",`curl ${l}/v1/embeddings -H 'Content-Type: application/json' \\
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
${t}`}var H=ce(),L=o(d(H),2),O=d(L),I=d(O),j=o(I),q=m(j),B=o(j,2);{let t=v(()=>`${l}/v1`);M(B,{get text(){return e(t)}})}var C=o(O,2),E=d(C),J=o(E),K=m(J,!0),U=o(C,2);{var z=t=>{var a=re(),s=d(a),c=o(s);P(c,21,()=>e(u),n=>n.model_uid,(n,_)=>{var p=se(),y=m(p,!0),h={};f(()=>{r(y,e(_).model_uid),h!==(h=e(_).model_uid)&&(p.value=(p.__value=h)??"")}),$(n,p)}),ee(c),f(n=>r(s,`${n??""} `),[()=>g("Model")]),te(c,()=>e(b),n=>oe(b,n)),$(t,a)},N=t=>{var a=le(),s=m(a,!0);f(c=>r(s,c),[()=>g("No model is ready: put its name in place of MODEL.")]),$(t,a)};V(U,t=>{e(u).length>1?t(z):e(u).length||t(N,1)})}var S=o(L,2);P(S,17,()=>e(R),([t,a])=>t,(t,a)=>{var s=v(()=>ae(e(a),2));let c=()=>e(s)[0],n=()=>e(s)[1];var _=ie(),p=d(_),y=d(p),h=m(y,!0),W=o(y);M(W,{get text(){return n()}});var Y=o(p,2),F=m(Y,!0);f(()=>{r(h,c()),r(F,n())}),$(t,_)}),f((t,a,s)=>{r(I,`${t??""} `),r(q,`${l??""}/v1`),r(E,`${a??""} `),r(K,s)},[()=>g("Base URL of OpenAI clients:"),()=>g('Where the server needs keys, put one in place of "none".'),()=>g("All routes")]),$(T,H),X()}export{de as default};
