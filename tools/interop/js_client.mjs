// The project's own JavaScript client in Node, against a running server, and against a small node that speaks the whole
// protocol, device to device included.

import { once } from "node:events";
import { WebSocketServer } from "ws";
import { BINARY, JSON_TEXT, UNICODE, assert, push, run, soon } from "./check.mjs";
import { device, start } from "./js_line.mjs";

async function messages_arrive_and_are_acknowledged() {
  const { line, next } = start(device("client-json"));
  const welcome = await next("open");
  assert(welcome.device_id === "client-json" && line.state === "open", welcome);
  await push("client-json", `{"data":${JSON_TEXT},"wait":"acked"}`, "application/json", "acked");
  const { data } = await next("message");
  assert(JSON.stringify(data) === JSON.stringify(JSON.parse(JSON_TEXT)), data);
  await push("client-json", UNICODE);
  assert((await next("message")).data === UNICODE, "text");
  await push("client-json", BINARY, "application/octet-stream");
  assert(Buffer.from((await next("message")).data).equals(BINARY), "bytes");
  line.close();
  assert(line.state === "closed", line.state);
}

async function a_newer_line_of_the_device_sends_the_older_away_for_good() {
  const first = start(device("client-twice"));
  await first.next("open");
  const newer = start(device("client-twice"));
  await newer.next("open");
  const close = await first.next("close");
  assert(close.code === 4502 && close.reason === "replaced" && !close.reconnects, close);
  newer.line.close();
}

async function a_request_that_the_node_refuses_is_rejected_and_the_line_stays() {
  const { line, next } = start(device("client-unknown"));
  await next("open");
  const refused = await line.send({ device: "no id" }, 1).catch((error) => error);
  assert(refused.code === "invalid_id", refused);
  await push("client-unknown", "still here");
  assert((await next("message")).data === "still here", "message");
  line.close();
}

/** Two devices of an account: they list, watch and reach each other, and nobody else. */
async function reachEachOther(url, acknowledgement) {
  const [phone, tv] = [start(url("phone")), start(url("tv"), { connect: false })];
  await phone.next("open");
  const states = [];
  const came = new Promise((resolve) =>
    phone.line.watch((devices) => {
      states.push(devices.map((entry) => entry.device_id).sort());
      if (states.at(-1).includes("tv")) resolve();
    }),
  );
  tv.line.connect();
  await tv.next("open");
  await soon(came, "presence");
  const list = await phone.line.list();
  assert(JSON.stringify(list.map((entry) => entry.device_id).sort()) === '["phone","tv"]', list);
  tv.line.addEventListener("message", (event) => {
    event.preventDefault();
    event.detail.ack({ volume: event.detail.data.volume + 1 });
  });
  const reply = await phone.line.send("tv", { volume: 6 }, { wait: "acked" });
  assert(reply.result === "acked" && JSON.stringify(reply.data) === acknowledgement, reply);
  const message = await tv.next("message");
  assert(message.from.device === "phone" && message.data.volume === 6, message);
  const refused = await phone.line.send("toaster", 1).catch((error) => error);
  assert(refused.code === "target_unavailable", refused);
  for (const { line } of [phone, tv]) line.close();
}

async function devices_of_an_account_reach_list_and_watch_each_other() {
  await reachEachOther((id) => `${device(id)}&user_id=ann`, undefined);
}

/** A node that gives the acknowledgement's data back as well. */
async function they_do_so_over_a_node_made_up_here() {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  const lines = new Map();
  const tellWatchers = (device_id, state) => {
    const frame = JSON.stringify({ type: "presence", device_id, state, cause: "test", at_ms: 1 });
    for (const other of lines.values()) if (other.watches) other.socket.send(frame);
  };
  server.on("connection", (socket, request) => {
    const device_id = new URL(request.url, "ws://x").searchParams.get("device_id");
    const me = { socket, watches: false };
    const tell = (frame) => socket.send(JSON.stringify(frame));
    tellWatchers(device_id, "online");
    lines.set(device_id, me);
    tell({ type: "welcome", device_id, connection_id: device_id, ping_ms: 45_000, max_message_bytes: 65_536 });
    socket.on("message", (text) => {
      const { type, id, to, ...rest } = JSON.parse(text);
      const devices = [...lines.keys()].map((device_id) => ({ device_id, state: "online" }));
      if (type === "list") tell({ type: "devices", id, devices, cursor: null });
      if (type === "watch") tell({ type: "devices", id, devices, more: false });
      if (type === "watch") me.watches = true;
      const target = type === "send" && lines.get(to.device);
      if (type === "send" && !target) tell({ type: "reply", id, error: { code: "target_unavailable", message: "no", retryable: true } });
      if (target) {
        const message = { type: "message", message_id: id, from: { device: device_id }, data: rest.data, ack: true };
        target.socket.send(JSON.stringify(message));
        target.pending = (data) => tell({ type: "reply", id, message_id: id, result: "acked", latency_ms: 1, data });
      }
      if (type === "ack") me.pending(rest.data);
    });
  });
  await once(server, "listening");
  const url = (id) => `ws://127.0.0.1:${server.address().port}/ws?device_id=${id}`;
  await reachEachOther(url, '{"volume":7}');
  server.close();
}

await run([
  messages_arrive_and_are_acknowledged,
  a_newer_line_of_the_device_sends_the_older_away_for_good,
  a_request_that_the_node_refuses_is_rejected_and_the_line_stays,
  devices_of_an_account_reach_list_and_watch_each_other,
  they_do_so_over_a_node_made_up_here,
]);
// A line that a failed check left open would keep this process alive.
process.exit();
