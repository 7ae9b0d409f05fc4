// A device in Chromium against a running server: `new WebSocket(...)`, as in a browser's console.

import { chromium } from "playwright-core";
import { BINARY, JSON_TEXT, LARGE, UNICODE, assert, devices, ops, push, run, soon } from "./check.mjs";

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

/** The page of the first minute, with the project's own client in it. */
async function the_page_of_the_first_minute_shows_what_arrives() {
  const device = await browser.newPage();
  const faults = [];
  device.on("pageerror", (error) => faults.push(error.message));
  await device.goto(`http://${ops}/device?device_id=browser-page`);
  await soon(device.getByText("open", { exact: true }).waitFor(), "open line");
  const command = await device.locator("#command").textContent();
  assert(command.includes(`${process.env.TAUTLINE_TEST_API.split(":")[1]}/v1/devices/browser-page/messages?wait=acked`), command);
  // A payload is text on the page, whatever is in it.
  for (const payload of ["hello", "<img src=x onerror=alert(1)>"]) {
    await push("browser-page", payload, "text/plain", "acked", "?wait=acked");
    await soon(device.locator("li", { hasText: payload }).waitFor(), "message on the page");
  }
  const other = await browser.newPage();
  await other.goto(`http://${ops}/device?device_id=browser-second`);
  await soon(other.getByRole("button", { name: "Say hello to browser-page" }).click(), "button");
  await soon(device.locator("li", { hasText: "from browser-second" }).waitFor(), "message of the other page");
  await soon(other.getByText("(acked)").waitFor(), "reply");
  await other.close();
  assert((await device.locator("li img").count()) === 0 && faults.length === 0, faults);
  await device.close();
}

/** The client where it is at home: bytes, a request, and the end of a line. */
async function the_client_works_in_a_browser() {
  const page = await browser.newPage();
  await page.goto(`http://${ops}/device?device_id=browser-other`);
  const opened = page.evaluate(async (devices) => {
    const { Tautline } = await import("./tautline.js");
    const line = new Tautline(`ws://${devices}/ws?device_id=browser-client`);
    window.line = line;
    window.received = new Promise((resolve) => line.addEventListener("message", ({ detail }) => resolve([...detail.data])));
    window.ended = new Promise((resolve) => line.addEventListener("close", ({ detail }) => resolve(detail)));
    await new Promise((resolve) => line.addEventListener("open", resolve));
    return line.welcome.device_id;
  }, devices);
  assert((await soon(opened, "open line")) === "browser-client", "welcome");
  await push("browser-client", BINARY, "application/octet-stream", "acked", "?wait=acked");
  const bytes = await soon(page.evaluate(() => window.received), "message");
  assert(Buffer.from(bytes).equals(BINARY), bytes);
  await connect("browser-client");
  const ended = await soon(page.evaluate(() => window.ended), "close");
  assert(ended.code === 4502 && ended.reason === "replaced" && !ended.reconnects, ended);
  await close("browser-client");
  await page.close();
}

try {
  await run([
    a_console_receives_what_was_pushed,
    a_raw_line_carries_the_payload_alone,
    the_page_of_the_first_minute_shows_what_arrives,
    the_client_works_in_a_browser,
  ]);
} finally {
  await browser.close();
}
