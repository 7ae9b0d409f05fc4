// A device in Chromium against a running server: `new WebSocket(...)`, as in a browser's console.

import { chromium } from "playwright-core";
import { BINARY, JSON_TEXT, LARGE, UNICODE, assert, devices, push, run, soon } from "./check.mjs";

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH,
  args: ["--no-sandbox", "--no-proxy-server"], // containers have no user namespace to sandbox in
});
const page = await browser.newPage();

/** Opens a line in the page; `window.lines[device]` gathers what arrives, bytes as arrays. */
async function connect(device, protocols = []) {
  const opened = page.evaluate(
    async ([url, device, protocols]) => {
      const socket = new WebSocket(url, protocols);
      socket.binaryType = "arraybuffer";
      const line = { socket, frames: [], wake: () => {} };
      (window.lines ??= {})[device] = line;
      socket.onmessage = ({ data }) => {
        line.frames.push(typeof data === "string" ? data : [...new Uint8Array(data)]);
        line.wake();
      };
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = () => reject(new Error("the line did not open"));
      });
    },
    [`ws://${devices}/ws?device_id=${device}`, device, protocols],
  );
  await soon(opened, "open line");
}

function receive(device) {
  const frame = page.evaluate(async (device) => {
    const line = window.lines[device];
    if (line.frames.length === 0) await new Promise((resolve) => (line.wake = resolve));
    return line.frames.shift();
  }, device);
  return soon(frame, "frame");
}

async function close(device) {
  const closed = page.evaluate(async (device) => {
    const { socket } = window.lines[device];
    const event = new Promise((resolve) => (socket.onclose = resolve));
    socket.close(1000, "done");
    const { code, wasClean } = await event;
    return { code, wasClean };
  }, device);
  const event = await soon(closed, "close");
  assert(event.code === 1000 && event.wasClean, event);
}

async function a_console_receives_what_was_pushed() {
  await connect("browser-json");
  const welcome = JSON.parse(await receive("browser-json"));
  assert(welcome.type === "welcome" && welcome.device_id === "browser-json", welcome);
  await push("browser-json", `{"data":${JSON_TEXT}}`, "application/json");
  const text = await receive("browser-json");
  assert(text.includes(JSON_TEXT), text);
  for (const payload of ["hello", UNICODE, LARGE]) {
    await push("browser-json", payload);
    const message = JSON.parse(await receive("browser-json"));
    assert(message.data === payload, message);
  }
  await close("browser-json");
}

async function a_raw_line_carries_the_payload_alone() {
  await connect("browser-raw", ["tautline.v1.raw"]);
  await push("browser-raw", UNICODE);
  const text = await receive("browser-raw");
  assert(text === UNICODE, text);
  await push("browser-raw", BINARY, "application/octet-stream");
  const bytes = await receive("browser-raw");
  assert(Buffer.from(bytes).equals(BINARY), bytes);
  await close("browser-raw");
}

try {
  await run([a_console_receives_what_was_pushed, a_raw_line_carries_the_payload_alone]);
} finally {
  await browser.close();
}
