// A device on npm's `ws` against a running server: what it is sent arrives byte for byte.

import { once } from "node:events";
import WebSocket from "ws";
import { BINARY, JSON_TEXT, LARGE, UNICODE, assert, devices, push, run, soon } from "./check.mjs";

/** An open line whose frames wait in a queue from the first byte on. */
async function connect(device, protocols = []) {
  const socket = new WebSocket(`ws://${devices}/ws?device_id=${device}`, protocols);
  const frames = [];
  const waiting = [];
  socket.on("message", (data, isBinary) => {
    const frame = { data, isBinary, text: isBinary ? undefined : data.toString() };
    const wake = waiting.shift();
    if (wake) wake(frame);
    else frames.push(frame);
  });
  await soon(once(socket, "open"), "open line");
  const receive = () =>
    frames.length > 0 ? frames.shift() : soon(new Promise((wake) => waiting.push(wake)), "frame");
  return { socket, receive };
}

async function close({ socket }) {
  const closed = once(socket, "close");
  socket.close(1000, "done");
  const [code] = await soon(closed, "close");
  assert(code === 1000, { code });
}

async function welcome_comes_first_and_the_line_closes_cleanly() {
  const line = await connect("js-welcome", ["tautline.v1.json"]);
  assert(line.socket.protocol === "tautline.v1.json", line.socket.protocol);
  const welcome = JSON.parse((await line.receive()).text);
  assert(welcome.type === "welcome" && welcome.device_id === "js-welcome" && welcome.connection_id, welcome);
  await close(line);
}

async function payloads_arrive_in_the_envelope() {
  const line = await connect("js-json");
  await line.receive();
  const { message_id } = await push("js-json", `{"data":${JSON_TEXT}}`, "application/json");
  const { text } = await line.receive();
  assert(text.includes(JSON_TEXT) && JSON.parse(text).message_id === message_id, text);
  for (const payload of ["hello", UNICODE, LARGE]) {
    await push("js-json", payload);
    const message = JSON.parse((await line.receive()).text);
    assert(message.type === "message" && message.data === payload, message);
  }
  await push("js-json", BINARY, "application/octet-stream");
  const message = JSON.parse((await line.receive()).text);
  assert(Buffer.from(message.data_b64, "base64").equals(BINARY), message);
  await close(line);
}

async function a_raw_line_carries_the_payload_alone() {
  const line = await connect("js-raw", ["tautline.v1.raw"]);
  for (const payload of [Buffer.from(UNICODE), BINARY, Buffer.from(LARGE)]) {
    await push("js-raw", payload, "application/octet-stream");
    const frame = await line.receive();
    assert(frame.data.equals(payload) && frame.isBinary === (payload === BINARY), frame);
  }
  await close(line);
}

async function pings_are_answered_both_ways() {
  const line = await connect("js-ping");
  await line.receive();
  const ponged = once(line.socket, "pong");
  line.socket.ping("tautline");
  const [pong] = await soon(ponged, "pong");
  assert(pong.toString() === "tautline", pong.toString());
  // `ws` answers by itself; the second ping comes only after the first was answered for.
  for (const which of ["first ping", "second ping"]) await soon(once(line.socket, "ping"), which);
  await close(line);
}

async function an_unknown_sub_protocol_is_refused() {
  const socket = new WebSocket(`ws://${devices}/ws?device_id=js-refused`, ["soap"]);
  const refused = new Promise((resolve, reject) => {
    socket.on("unexpected-response", (_, answer) => resolve(answer.statusCode));
    socket.on("error", () => {}); // follows the answer
    socket.on("open", () => reject(new Error("the line opened")));
  });
  const status = await soon(refused, "answer");
  assert(status === 400, { status });
  socket.terminate();
}

await run([
  welcome_comes_first_and_the_line_closes_cleanly,
  payloads_arrive_in_the_envelope,
  a_raw_line_carries_the_payload_alone,
  pings_are_answered_both_ways,
  an_unknown_sub_protocol_is_refused,
]);
