// The project's own JavaScript client in Node, against a running server.

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

/** And nobody else. */
async function devices_of_an_account_list_watch_and_reach_each_other() {
  const url = (id) => `${device(id)}&user_id=ann`;
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
  assert(reply.result === "acked" && JSON.stringify(reply.data) === '{"volume":7}', reply);
  const message = await tv.next("message");
  assert(message.from.device === "phone" && message.data.volume === 6, message);
  const refused = await phone.line.send("toaster", 1).catch((error) => error);
  assert(refused.code === "target_unavailable", refused);
  for (const { line } of [phone, tv]) line.close();
}

await run([
  messages_arrive_and_are_acknowledged,
  a_newer_line_of_the_device_sends_the_older_away_for_good,
  a_request_that_the_node_refuses_is_rejected_and_the_line_stays,
  devices_of_an_account_list_watch_and_reach_each_other,
]);
// A line that a failed check left open would keep this process alive.
process.exit();
