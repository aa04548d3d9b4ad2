// Holds an Android phone while it works. Needs `npm install ws`; LEASEHOLD_URL is ws:// or wss://, one or several.
import { randomUUID } from "node:crypto";
import WebSocket from "ws";

const needs = ["phone,os=android"];
const urls = (process.env.LEASEHOLD_URL ?? "ws://127.0.0.1:5327").split(",");
const fail = (message) => { console.error(message); process.exit(1); };
const answers = new Map();
let ids = 0;
let decided;
const decision = new Promise((resolve) => { decided = resolve; });

// A socket to the broker that leads. Those that stand by send there, which the library follows.
const open = (url) => new Promise((resolve, reject) => {
  const options = { followRedirects: true, handshakeTimeout: 5000 };
  const socket = new WebSocket(`${url.trim().replace(/\/+$/, "")}/v1/ws`, "leasehold.v1", options);
  socket.once("open", () => resolve(socket)).once("error", reject);
});
const reach = async () => {
  let why;
  for (let turn = 0; turn < 30 * urls.length; turn++) {
    try { return await open(urls[turn % urls.length]); } catch (error) { why = error.message; }
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  fail(`no broker: ${why}`);
};

const ws = await reach();
const call = (method, params = {}) => new Promise((resolve) => {
  answers.set(++ids, resolve);
  ws.send(JSON.stringify({ jsonrpc: "2.0", id: ids, method, params }));
});
ws.on("error", (error) => fail(error.message));
ws.on("message", (data) => {
  const { id, method, params, result, error } = JSON.parse(data);
  if (error) fail(error.message);
  if (id) answers.get(id)(result);
  if (method === "lease.granted" || method === "claim.ended") decided(params);
});
await call("session.open", { instance: randomUUID(), needs });
let claim = await call("lease.acquire", { request_id: 1, needs });
if (claim.state === "queued") claim = await decision;
if (claim.state === "ended") fail(claim.end.message);
console.log(claim.lease.resources.phone[0].name, claim.lease.fence);
await call("lease.release", { lease: claim.lease.lease, outcome: "passed" });
await call("session.close");
ws.close(1000);
