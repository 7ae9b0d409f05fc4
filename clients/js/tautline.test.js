// The client against a scripted node: a fake WebSocket, fake timers, and jitter that is always half of what it may be.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Tautline, TautlineError, comesBack } from "./tautline.js";

const URL = "ws://node.example/ws?device_id=tv-1";
const WELCOME = {
  type: "welcome",
  device_id: "tv-1",
  connection_id: "c1",
  ping_ms: 45_000,
  max_message_bytes: 1_000,
  server_time_ms: 1_000_000,
};

let sockets = [];

/** A socket whose node is the test. */
class FakeSocket {
  readyState = 0;
  said = [];
  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    sockets.push(this);
  }
  send(text) {
    assert.equal(this.readyState, 1, "spoke on a socket that is not open");
    this.said.push(JSON.parse(text));
  }
  close(code) {
    if (this.readyState < 2) Object.assign(this, { readyState: 2, closedWith: code });
  }
  // What the node does.
  open() {
    this.readyState = 1;
    this.onopen?.({});
  }
  tell(...frames) {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }
  end(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
  welcome(fields) {
    this.open();
    this.tell({ ...WELCOME, ...fields });
  }
  get types() {
    return this.said.map((frame) => frame.type);
  }
}

beforeEach((context) => {
  sockets = [];
  mock.timers.reset();
  mock.restoreAll();
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 0.5);
});

/** Lets promises settle: `setImmediate` is not faked. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

async function pass(ms) {
  mock.timers.tick(ms);
  await settle();
}

function start(options) {
  const line = new Tautline(URL, { WebSocket: FakeSocket, ...options });
  const events = [];
  for (const type of ["open", "message", "close", "error", "goaway", "presence", "state"]) {
    line.addEventListener(type, ({ detail }) => events.push([type, detail]));
  }
  const of = (wanted) => events.filter(([type]) => type === wanted).map(([, detail]) => detail);
  return { line, events, of };
}

async function open(options) {
  const started = start(options);
  await settle();
  sockets[0].welcome();
  return { ...started, socket: sockets[0] };
}

const live = () => sockets.filter((socket) => socket.readyState < 2).length;
const goaway = (fields) => ({ type: "goaway", reason: "max_age", reconnect_after_ms: 1_000, deadline_ms: 5_000, ...fields });
const rejection = (promise) => promise.then(() => assert.fail("it was fulfilled"), (error) => error);
const message = (id, fields) => ({ type: "message", message_id: id, from: { service: "dev" }, data: 1, ...fields });
const token = (exp, n = 0) => `h.${btoa(JSON.stringify({ sub: "tv-1", exp, n })).replaceAll("=", "")}.s`;

test("a line offers the protocol, says hello with its token, and is open when it is welcomed", async () => {
  const { line, of } = start({ token: () => Promise.resolve("secret") });
  await settle();
  assert.deepEqual(sockets[0].protocols, ["tautline.v1.json"]);
  assert.equal(sockets[0].url, URL);
  sockets[0].open();
  assert.deepEqual(sockets[0].said, [{ type: "hello", token: "secret" }]);
  assert.deepEqual([line.state, line.welcome], ["connecting", null]);
  sockets[0].tell(WELCOME);
  assert.deepEqual([line.state, line.welcome.device_id], ["open", "tv-1"]);
  assert.equal(of("open")[0].isHandover, false);
});

test("the URL may be one of http or https; any other is refused, and so is a runtime without WebSocket", async () => {
  new Tautline("https://node.example/ws#x", { WebSocket: FakeSocket });
  await settle();
  assert.equal(sockets[0].url, "wss://node.example/ws");
  assert.throws(() => new Tautline("ftp://node.example/ws", { WebSocket: FakeSocket }), TypeError);
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  delete globalThis.WebSocket;
  try {
    assert.throws(() => new Tautline(URL), /options\.WebSocket/);
  } finally {
    if (own) Object.defineProperty(globalThis, "WebSocket", own);
  }
});

test("close codes say whether to come back", () => {
  for (const code of [1000, 1001, 1006, 1011, 1012, 1013, 4000, 4001, 4006, 4007, 4499]) assert.ok(comesBack(code), code);
  for (const code of [1002, 1003, 1007, 1009, 4500, 4502, 4504, 4999]) assert.ok(!comesBack(code), code);
  assert.ok(comesBack(1008, "handshake_timeout"));
  assert.ok(!comesBack(1008, "policy_violation"));
});

test("after 4000 to 4499 it comes back with growing jitter, capped, and from the start after a stable minute", async () => {
  const { line, of } = await open();
  const waits = [];
  for (let n = 0; n < 9; n += 1) {
    sockets.at(-1).end(4002, "slow_consumer");
    assert.equal(line.state, "waiting");
    const { retryInMs } = of("close").at(-1);
    waits.push(retryInMs);
    await pass(retryInMs - 1);
    assert.equal(live(), 0, "came back early");
    await pass(1);
    assert.equal(live(), 1);
    sockets.at(-1).welcome();
  }
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  await pass(60_000);
  sockets.at(-1).tell({ type: "pong" });
  sockets.at(-1).end(4002);
  assert.equal(of("close").at(-1).retryInMs, 500);
});

test("the jitter is full: from nothing to the ceiling", async () => {
  const { of } = await open();
  for (const [share, wait] of [[0, 0], [0.999, 1_998]]) {
    mock.method(Math, "random", () => share);
    sockets.at(-1).end(1006);
    assert.equal(of("close").at(-1).retryInMs, wait);
    await pass(wait);
  }
});

test("after 4500 to 4999 it stays away until it is told to connect", async () => {
  const { line, socket, of } = await open();
  const waiting = rejection(line.send("tv-2", 1));
  socket.end(4502, "replaced");
  assert.deepEqual(of("close"), [{ code: 4502, reason: "replaced", opened: true, reconnects: false, retryInMs: null }]);
  assert.equal((await waiting).code, "line_lost");
  assert.equal(line.state, "closed");
  await pass(600_000);
  assert.equal(sockets.length, 1);
  assert.equal((await rejection(line.list())).code, "closed");
  line.connect();
  await settle();
  assert.equal(sockets.length, 2);
});

test("a go-away makes the new line first and then closes the old one", async () => {
  const { line, socket, of } = await open();
  socket.tell(goaway());
  assert.equal(of("goaway")[0].reason, "max_age");
  await pass(999);
  assert.equal(sockets.length, 1);
  await pass(1);
  assert.equal(sockets.length, 2);
  socket.tell(message("m1"));
  assert.equal(of("message").length, 1, "the old line still counts");
  assert.equal(line.state, "open");
  const asked = line.send("tv-2", 1);
  sockets[1].welcome({ connection_id: "c2" });
  socket.tell(message("m2"));
  assert.equal(of("message").length, 2, "and is heard out");
  sockets[1].tell({ type: "reply", id: "1", result: "written" });
  assert.equal((await asked).result, "written");
  await pass(1_999);
  assert.equal(live(), 2);
  await pass(1);
  assert.deepEqual([live(), socket.closedWith], [1, 1000]);
  assert.deepEqual([line.welcome.connection_id, of("open")[1].isHandover, of("close").length], ["c2", true, 0]);
  for (let n = 0; n < 100; n += 1) {
    await pass(1_000);
    assert.ok(live() <= 1, "two lines without a hand-over");
  }
});

test("a go-away that is repeated begins no second hand-over", async () => {
  const { socket } = await open();
  socket.tell(goaway());
  await pass(1_000);
  socket.tell(goaway());
  await pass(1_000);
  assert.equal(sockets.length, 2);
});

test("a go-away begins early enough before the deadline, and its reconnect time may be nonsense", async () => {
  const { socket } = await open();
  socket.tell(goaway({ reconnect_after_ms: 5_000 }));
  await pass(4_000);
  assert.equal(sockets.length, 2);
  sockets[1].welcome();
  sockets[1].tell(goaway({ reconnect_after_ms: "soon", deadline_ms: null }));
  await pass(0);
  assert.equal(sockets.length, 3);
});

test("the node closing the old line as replaced is part of a hand-over, before and after the welcome", async () => {
  const { line, socket, of } = await open();
  socket.tell(goaway());
  await pass(1_000);
  socket.end(4502, "replaced");
  sockets[1].welcome();
  assert.deepEqual([line.state, of("close").length, live()], ["open", 0, 1]);
  const asked = line.send("tv-2", 1);
  sockets[1].tell(goaway());
  await pass(1_000);
  sockets[2].welcome();
  sockets[1].tell({ type: "reply", id: "1", result: "written" });
  assert.equal((await asked).result, "written");
  sockets[1].end(4502, "replaced");
  assert.deepEqual([line.state, of("close").length, live()], ["open", 0, 1]);
});

test("hand-overs in quick succession leave no more than two lines", async () => {
  const { line, socket } = await open();
  socket.tell(goaway({ reconnect_after_ms: 0 }));
  await pass(0);
  sockets[1].welcome();
  sockets[1].tell(goaway({ reconnect_after_ms: 0 }));
  await pass(0);
  sockets[2].welcome();
  assert.deepEqual([line.state, live(), socket.closedWith], ["open", 2, 1000]);
});

test("a kick during a hand-over ends both lines", async () => {
  const { line, socket, of } = await open();
  socket.tell(goaway());
  await pass(1_000);
  socket.end(4504, "kicked");
  assert.deepEqual([line.state, of("close").at(-1).code, live()], ["closed", 4504, 0]);
});

test("a hand-over that fails is tried again while the old line lives, and after it with the same waits", async () => {
  const { line, socket, of } = await open();
  socket.tell(goaway({ reason: "drain" }));
  await pass(1_000);
  sockets[1].end(1006);
  assert.equal(line.state, "open");
  assert.equal(of("close").length, 0);
  await pass(500);
  assert.equal(sockets.length, 3);
  sockets[2].end(1006);
  socket.end(4000, "drain");
  assert.equal(line.state, "waiting");
  await pass(1_000);
  assert.equal(sockets.length, 4);
  assert.equal(live(), 1);
});

test("an old line that closes before its hand-over began leaves the time of the go-away as the wait", async () => {
  const { socket } = await open();
  socket.tell(goaway({ reconnect_after_ms: 3_000 }));
  await pass(1_000);
  socket.end(1006);
  await pass(1_999);
  assert.equal(sockets.length, 1);
  await pass(1);
  assert.equal(sockets.length, 2);
});

test("a go-away may point elsewhere, but never from an encrypted line to a plain one", async () => {
  const { socket } = await open();
  socket.tell(goaway({ url: "ws://other.example/ws" }));
  await pass(1_000);
  assert.equal(sockets[1].url, "ws://other.example/ws");
  sockets[1].end(1006);
  await pass(500);
  assert.equal(sockets[2].url, URL, "back to its own when that does not answer");
  sockets = [];
  new Tautline("wss://node.example/ws", { WebSocket: FakeSocket });
  await settle();
  sockets[0].welcome();
  sockets[0].tell(goaway({ url: "ws://other.example/ws" }));
  await pass(1_000);
  assert.equal(sockets[1].url, "wss://node.example/ws");
});

test("a message is acknowledged after its listeners, unless one keeps that for itself", async () => {
  const { line, socket, of } = await open();
  socket.tell(message("m1"), message("m2", { ack: true }));
  assert.deepEqual(socket.said, [{ type: "ack", message_id: "m2" }]);
  line.addEventListener("message", (event) => event.preventDefault());
  socket.tell(message("m3", { ack: true }));
  assert.equal(socket.said.length, 1);
  of("message")[2].ack({ volume: 7 });
  of("message")[2].ack();
  assert.deepEqual(socket.said[1], { type: "ack", message_id: "m3", data: { volume: 7 } });
  assert.equal(socket.said.length, 2, "acknowledged once");
  of("message")[0].ack();
  assert.equal(socket.said.length, 2, "nobody waits for it");
});

test("a message that comes over both lines of a hand-over is seen once, and acknowledged again", async () => {
  const { socket, of } = await open();
  socket.tell(goaway(), message("m1", { ack: true }));
  await pass(1_000);
  sockets[1].welcome();
  sockets[1].tell(message("m1", { ack: true }), message("m2"));
  assert.deepEqual(of("message").map((m) => m.message_id), ["m1", "m2"]);
  assert.deepEqual(sockets[1].said, [{ type: "ack", message_id: "m1" }]);
});

test("a bounded number of messages is remembered", async () => {
  const { socket, of } = await open();
  for (let n = 0; n <= 1_024; n += 1) socket.tell(message(`m${n}`));
  socket.tell(message("m1024"), message("m1"), message("m0"));
  assert.equal(of("message").length, 1_026, "only the oldest was forgotten");
});

test("bytes arrive and leave as bytes", async () => {
  const { line, socket, of } = await open();
  socket.tell(message("m1", { data: undefined, data_b64: "AP8Q" }));
  assert.deepEqual(of("message")[0].data, Uint8Array.of(0, 255, 16));
  line.send("tv-2", Uint8Array.of(1, 0, 255, 16, 2).subarray(1, 4)).catch(() => {});
  assert.deepEqual([socket.said[0].data_b64, "data" in socket.said[0]], ["AP8Q", false]);
});

test("send resolves with the reply, and rejects with the node's error", async () => {
  const { line, socket } = await open();
  const [first, second] = [line.send("tv-2", { hi: 1 }, { wait: "acked", ttlMs: 5, collapseKey: "k" }), line.send({ user: "ann" }, null)];
  assert.deepEqual(socket.said[0], {
    type: "send",
    id: "1",
    to: { device: "tv-2" },
    data: { hi: 1 },
    wait: "acked",
    timeout_ms: 10_000,
    ttl_ms: 5,
    collapse_key: "k",
  });
  assert.deepEqual([socket.said[1].to, socket.said[1].data], [{ user: "ann" }, null]);
  const error = { code: "target_unavailable", message: "no such device", retryable: true };
  socket.tell({ type: "reply", id: "2", message_id: "m9", error }, { type: "reply", id: "1", result: "acked", data: 5 });
  assert.deepEqual(await first, { type: "reply", id: "1", result: "acked", data: 5 });
  const refused = await rejection(second);
  assert.ok(refused instanceof TautlineError);
  assert.deepEqual([refused.code, refused.retryable, refused.messageId], ["target_unavailable", true, "m9"]);
});

test("a node that does not know a request says so", async () => {
  const { line, socket, of } = await open();
  const list = rejection(line.list());
  socket.tell({ type: "error", id: "1", error: { code: "unknown_type", message: "?", retryable: false } });
  assert.equal((await list).code, "unknown_type");
  socket.tell({ type: "error", error: { code: "invalid_body", message: "?", retryable: false } });
  assert.equal(of("error")[0].code, "invalid_body");
});

test("a reply that does not come in time, or on this line, is an error", async () => {
  const { line, socket } = await open();
  const late = rejection(line.send("tv-2", 1, { timeoutMs: 1_000 }));
  await pass(3_000);
  assert.deepEqual([(await late).code, (await late).retryable], ["timeout", true]);
  const lost = rejection(line.send("tv-2", 1));
  socket.end(1006);
  assert.deepEqual([(await lost).code, (await lost).retryable], ["line_lost", false]);
  socket.tell({ type: "reply", id: "1", result: "written" });
  await pass(500);
  sockets[1].welcome();
  const left = rejection(line.send("tv-2", 1));
  sockets[1].tell(goaway());
  await pass(1_000);
  sockets[2].welcome();
  sockets[1].end(4502, "replaced");
  assert.equal((await left).code, "line_lost");
});

test("a caller may give up", async () => {
  const { line } = await open();
  const controller = new AbortController();
  const given = rejection(line.send("tv-2", 1, { signal: controller.signal }));
  controller.abort();
  assert.equal((await given).code, "aborted");
  assert.equal((await rejection(line.send("tv-2", 1, { signal: controller.signal }))).code, "aborted");
});

test("requests wait for a line, a bounded number of them, and for the new one during a hand-over", async () => {
  const { line } = start();
  const waiting = Array.from({ length: 256 }, (_, n) => rejection(line.send("tv-2", n)));
  assert.equal((await rejection(line.send("tv-2", 256))).code, "overloaded");
  await settle();
  sockets[0].welcome();
  assert.equal(sockets[0].said.length, 256);
  sockets[0].tell(...waiting.map((_, n) => ({ type: "reply", id: String(n + 1), error: { code: "x" } })));
  await Promise.all(waiting);
  sockets[0].tell(goaway());
  await pass(1_000);
  const sent = line.send("tv-2", "over");
  assert.equal(sockets[0].said.length, 256);
  sockets[1].welcome();
  assert.equal(sockets[1].said[0].data, "over");
  sockets[1].tell({ type: "reply", id: sockets[1].said[0].id, result: "written" });
  assert.equal((await sent).result, "written");
});

test("what the node would close the line for is not sent", async () => {
  const { line, socket } = await open();
  assert.equal((await rejection(line.send("tv-2", "é".repeat(490)))).code, "payload_too_large");
  assert.equal(socket.said.length, 0);
});

const device = (id, state = "online") => ({ device_id: id, state });

test("list gives the account's devices, page after page", async () => {
  const { line, socket } = await open();
  const list = line.list();
  assert.deepEqual(socket.said, [{ type: "list", id: "1" }]);
  socket.tell({ type: "devices", id: "1", devices: [device("tv-1")], cursor: "AAAA" });
  await settle();
  assert.deepEqual(socket.said[1], { type: "list", id: "2", cursor: "AAAA" });
  socket.tell({ type: "devices", id: "2", devices: [device("tv-2", "moving")], cursor: null });
  assert.deepEqual(await list, [device("tv-1"), device("tv-2", "moving")]);
});

test("watchers are told who is there, and who comes, moves and goes", async () => {
  const { line, socket, of } = await open();
  const told = [];
  const names = (devices) => devices.map(({ device_id, state }) => `${device_id} ${state}`).join(", ");
  line.watch((devices, change) => told.push([names(devices), change?.device_id ?? null]));
  const presence = (id, state) => ({ type: "presence", device_id: id, state, cause: "connected", at_ms: 1 });
  socket.tell({ type: "devices", id: "1", devices: [device("tv-1")], more: true }, presence("tv-9", "online"));
  assert.deepEqual(told, [], "not before all have been named");
  socket.tell({ type: "devices", id: "1", devices: [device("tv-2")], more: false }, presence("tv-2", "moving"), presence("tv-1", "offline"));
  assert.deepEqual(told, [
    ["tv-1 online, tv-9 online, tv-2 online", null],
    ["tv-1 online, tv-9 online, tv-2 moving", "tv-2"],
    ["tv-9 online, tv-2 moving", "tv-1"],
  ]);
  assert.equal(of("presence").length, 3);
  line.watch((devices) => told.push(["late", devices.length]));
  assert.deepEqual(told.at(-1), ["late", 2]);
  line.watch(() => {
    throw new Error("a watcher's own fault");
  });
  assert.equal(of("error")[0].message, "a watcher's own fault");
  socket.end(1006);
  await pass(500);
  sockets[1].welcome();
  sockets[1].tell({ type: "devices", id: "2", devices: [], more: false });
  assert.deepEqual(told.at(-2), ["", null], "gone while the line was");
});

test("watch lasts over lines, until the last watcher has gone", async () => {
  const { line, socket, of } = await open();
  const seen = [];
  const stop = [line.watch((_, p) => seen.push(["a", p.device_id])), line.watch((_, p) => seen.push(["b", p.device_id]))];
  assert.deepEqual(socket.types, ["watch"]);
  socket.tell({ type: "reply", id: "1" }, { type: "presence", device_id: "tv-2", state: "online", at_ms: 1 });
  assert.deepEqual(seen, [["a", "tv-2"], ["b", "tv-2"]]);
  assert.deepEqual(of("presence"), [{ device_id: "tv-2", state: "online", at_ms: 1 }]);
  socket.end(1006);
  await pass(500);
  sockets[1].welcome();
  assert.deepEqual(sockets[1].types, ["watch"]);
  stop[0]();
  stop[0]();
  assert.deepEqual(sockets[1].types, ["watch"]);
  stop[1]();
  assert.deepEqual(sockets[1].types, ["watch", "unwatch"]);
  sockets[1].tell({ type: "reply", id: sockets[1].said[0].id, error: { code: "unknown_type" } });
  await settle();
  assert.equal(of("error")[0].code, "unknown_type");
});

test("a silent line is pinged before the node would, and given up without an answer", async () => {
  const { line, socket, of } = await open();
  await pass(38_249);
  assert.deepEqual(socket.types, []);
  await pass(1);
  assert.deepEqual(socket.types, ["ping"]);
  socket.tell({ type: "pong" });
  await pass(38_250);
  assert.deepEqual(socket.types, ["ping", "ping"], "a pong is no traffic of ours");
  await pass(14_999);
  assert.equal(line.state, "open");
  await pass(1);
  assert.deepEqual([line.state, of("close")[0].reason, socket.readyState], ["waiting", "pong_timeout", 2]);
  await pass(500);
  assert.equal(live(), 1);
});

test("traffic both ways needs no ping", async () => {
  const { socket } = await open();
  socket.tell(message("m1", { ack: true }));
  await pass(38_250);
  assert.deepEqual(socket.types, ["ack"]);
});

test("a line that is never welcomed is given up", async () => {
  const { line } = start();
  await settle();
  sockets[0].open();
  await pass(20_000);
  assert.deepEqual([line.state, sockets[0].readyState], ["waiting", 2]);
});

test("a token is asked for at each line, and renewed on the live one before it ends, by the node's clock", async () => {
  let asked = 0;
  const { socket } = await open({ token: () => token(1_100 + 100 * asked, (asked += 1)) });
  assert.deepEqual([asked, socket.types], [1, ["hello"]]);
  await pass(79_999);
  assert.deepEqual([asked, socket.types.filter((t) => t !== "ping")], [1, ["hello"]]);
  socket.tell({ type: "pong" });
  await pass(1);
  assert.equal(asked, 2);
  assert.deepEqual(socket.said.at(-1), { type: "refresh", token: token(1_200, 2) });
  socket.tell({ type: "pong" });
  socket.end(4006, "token_expired");
  await pass(500);
  assert.equal(asked, 3);
});

test("a token that is fixed is not renewed, and one that cannot be had is tried again", async () => {
  const fixed = await open({ token: token(1_100), heartbeat: false });
  await pass(99_000);
  assert.deepEqual(fixed.socket.types, ["hello"]);
  sockets = [];
  const failing = start({ token: () => Promise.reject(new Error("no network")) });
  await settle();
  assert.deepEqual([failing.line.state, failing.of("error")[0].message, sockets.length], ["waiting", "no network", 0]);
});

test("close is for good, also while a token is fetched or a hand-over runs", async () => {
  let give;
  const fetching = start({ token: () => new Promise((resolve) => (give = resolve)) });
  await settle();
  fetching.line.close();
  give("late");
  await pass(600_000);
  assert.equal(sockets.length, 0);
  const { line, socket, of } = await open();
  socket.tell(goaway());
  await pass(1_000);
  const waiting = rejection(line.send("tv-2", 1));
  line.close();
  line.close();
  assert.deepEqual([live(), line.state, of("close").length], [0, "closed", 1]);
  assert.equal((await waiting).code, "closed");
  await pass(600_000);
  assert.equal(live(), 0);
});

test("nonsense from the node is an error, and the line lives on", async () => {
  const { line, socket, of } = await open();
  socket.onmessage({ data: "{" });
  socket.tell(null, 7, [], {}, { type: "of a newer node" }, { type: "reply", id: "99" }, { type: "error", id: "99", error: {} });
  assert.equal(of("error").length, 2);
  assert.equal(line.state, "open");
});

test("a network that comes back is a reason to look at once", async () => {
  const page = new EventTarget();
  let listeners = 0;
  globalThis.addEventListener = (...args) => {
    listeners += 1;
    page.addEventListener(...args);
  };
  globalThis.removeEventListener = (...args) => {
    listeners -= 1;
    page.removeEventListener(...args);
  };
  try {
    const { line, socket } = await open();
    page.dispatchEvent(new Event("online"));
    assert.deepEqual(socket.types, ["ping"]);
    await pass(5_000);
    assert.equal(line.state, "waiting");
    mock.method(Math, "random", () => 0.999);
    await pass(500);
    for (let n = 0; n < 5; n += 1) {
      sockets.at(-1).end(1006);
      if (n < 4) await pass(60_000);
    }
    const before = sockets.length;
    page.dispatchEvent(new Event("online"));
    await pass(1_000);
    assert.equal(sockets.length, before + 1, "without the rest of the wait");
    line.close();
    assert.equal(listeners, 0);
    page.dispatchEvent(new Event("online"));
    await pass(60_000);
    assert.equal(sockets.length, before + 1);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});
