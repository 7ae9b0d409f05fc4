// The project's own JavaScript client in Node, for scripts: a line, and what it said in queues.

import { once } from "node:events";
import WebSocket from "ws";
import { devices, soon } from "./check.mjs";
import { Tautline } from "./tautline.js";

/** Where a device connects, in dev mode. */
export const device = (id) => `ws://${devices}/ws?device_id=${id}`;

/** A client whose events wait in queues. */
export function start(url, options) {
  const line = new Tautline(url, { WebSocket, ...options });
  const queues = {};
  for (const type of ["open", "message", "close", "goaway", "error"]) {
    queues[type] = [];
    line.addEventListener(type, ({ detail }) => queues[type].push(detail));
  }
  const next = async (type) => {
    if (queues[type].length === 0) await soon(once(line, type), type);
    return queues[type].shift();
  };
  return { line, next, queues };
}
