// A device's line to a Tautline node: one file without dependencies, for browsers, Node, Deno and Bun.
//
//   const line = new Tautline("wss://push.example.com/ws", { token: () => fetchToken() });
//   line.addEventListener("message", ({ detail }) => console.log(detail.data));
//
// The frames are those of docs/protocol.md. There is one live line at a time, and two only while a go-away is
// honoured: the new one is welcomed before the old one is let go, and the old one is heard out, so that nothing is
// missed in between.

const SUB_PROTOCOL = "tautline.v1.json";
/** Full jitter: a wait is drawn from zero to a ceiling that doubles, so that a crowd that was cut off comes back spread out. */
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_LAST_MS = 60_000;
/** Only a line that proved stable starts the growth anew; otherwise a node that drops lines at once is hammered. */
const STABLE_AFTER_MS = 60_000;
/** From dialling to `welcome`. The node gives a handshake 10 s; the rest is the network's. */
const WELCOME_TIMEOUT_MS = 20_000;
/** From our ping to anything at all. */
const PONG_TIMEOUT_MS = 15_000;
/** The same when the page was just shown or the network came back: the line is probably dead. */
const PROBE_TIMEOUT_MS = 5_000;
/** The node pings after a silence of up to a tenth less than it says. Ours come earlier still and replace them: a page cannot see the node's. */
const PING_SHARE = 0.85;
/** A hand-over begins in the first four fifths of the grace, so that the new line is there before the old one is closed. */
const HANDOVER_SHARE = 0.8;
/** How long an old line is heard out when the new one is there: the node closes it, unless that is another node. */
const LINGER_MS = 2_000;
/** A token is renewed when four fifths of what was left of it are gone. */
const REFRESH_SHARE = 0.8;
const REFRESH_MIN_MS = 1_000;
const REFRESH_RETRY_MS = 10_000;
const REPLY_TIMEOUT_MS = 10_000;
/** What a reply may take beyond the node's own deadline. */
const REPLY_SLACK_MS = 2_000;
const REQUESTS_MAX = 256;
const SEEN_MAX = 1_024;
/** The longest a timer can be set for. */
const TIMER_MAX_MS = 2 ** 31 - 1;
/** A newer line of this device took over. */
const REPLACED = 4502;
/** RFC 6455 codes that say that this program is at fault: it would happen again. */
const OUR_FAULT = new Set([1002, 1003, 1007, 1009]);

/** What went wrong, by the code of the protocol, or one of this file's: `timeout`, `line_lost`, `closed`, `aborted`. */
export class TautlineError extends Error {
  constructor({ code, message, retryable = false }, messageId) {
    super(message ?? code);
    this.name = "TautlineError";
    this.code = code;
    this.retryable = retryable;
    this.messageId = messageId;
  }
}

/** Whether a device should come back after a close code: 4000–4499 do, 4500–4999 do not. */
export function comesBack(code, reason = "") {
  if (code >= 4000) return code < 4500;
  return !OUR_FAULT.has(code) && !(code === 1008 && reason === "policy_violation");
}

export class Tautline extends EventTarget {
  #url;
  #options;
  #WebSocket;
  /** "connecting", "open", "waiting" or "closed". */
  #state = "closed";
  /** The live line, if there is one, the one that is being made, and the one that was handed over. */
  #line = null;
  #next = null;
  #old = null;
  #ceiling = BACKOFF_FIRST_MS;
  #timers = {};
  #requests = new Map();
  #requestId = 0;
  #seen = new Map();
  #watchers = new Set();
  /** What watchers are told: each device's state; and the same while its pages come in. */
  #devices = null;
  #pages = null;
  #removeListeners = () => {};

  constructor(url, options = {}) {
    super();
    this.#url = webSocketUrl(url, globalThis.location?.href);
    this.#options = options;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) {
      throw new TypeError("this runtime has no WebSocket: give one as options.WebSocket, such as that of npm's ws");
    }
    if (options.connect !== false) this.connect();
  }

  get state() {
    return this.#state;
  }

  /** The `welcome` of the live line, or null. */
  get welcome() {
    return this.#line?.welcome ?? null;
  }

  /** Begins to keep a line. The constructor does; this is for later, as after a close that does not come back. */
  connect() {
    if (this.#state !== "closed") return;
    this.#ceiling = BACKOFF_FIRST_MS;
    this.#removeListeners = this.#listenToPage();
    this.#turn("connecting");
    this.#dial(this.#url);
  }

  /** Closes for good, until `connect`. */
  close() {
    if (this.#state === "closed") return;
    const opened = Boolean(this.#line);
    this.#stop();
    this.#emit("close", { code: 1000, reason: "", opened, reconnects: false, retryInMs: null });
  }

  /**
   * Sends to a device, an account or a topic, and resolves with the node's `reply`. `to` is a device's id, or
   * `{ device }`, `{ user }` or `{ topic }`; `data` any JSON value, or bytes.
   */
  send(to, data, { wait, timeoutMs = REPLY_TIMEOUT_MS, ttlMs, collapseKey, signal } = {}) {
    const frame = {
      type: "send",
      to: typeof to === "string" ? { device: to } : to,
      ...payload(data),
      wait,
      timeout_ms: timeoutMs,
      ttl_ms: ttlMs,
      collapse_key: collapseKey,
    };
    return this.#request(frame, timeoutMs + REPLY_SLACK_MS, signal);
  }

  /** The devices of this device's account that have a line, page after page. */
  async list({ timeoutMs = REPLY_TIMEOUT_MS, signal } = {}) {
    const devices = [];
    let cursor;
    do {
      const page = await this.#request({ type: "list", cursor }, timeoutMs, signal);
      devices.push(...(page.devices ?? []));
      cursor = page.cursor ?? undefined;
    } while (cursor !== undefined);
    return devices;
  }

  /**
   * Calls back with the account's devices that have a line, at once and whenever one comes, moves or goes, on this line
   * and on those after it; and with the `presence` that says so, or null when all were listed anew. Returns what ends
   * it. A node that does not watch is told by an `error` event.
   */
  watch(callback) {
    const watcher = { callback };
    this.#watchers.add(watcher);
    if (this.#watchers.size === 1) {
      this.#devices = null;
      if (this.#line) this.#sayWatch("watch");
    } else if (this.#devices) {
      this.#tell(watcher, null);
    }
    return () => {
      const isLast = this.#watchers.delete(watcher) && this.#watchers.size === 0;
      if (isLast && this.#line) this.#sayWatch("unwatch");
    };
  }

  // Lines

  async #dial(url) {
    const line = { socket: null, welcome: null, goaway: null, hasSaid: false, hasHeard: false };
    this.#next = line;
    line.deadline = setTimeout(() => this.#lose(line, 1006, "welcome_timeout"), WELCOME_TIMEOUT_MS);
    try {
      const token = await this.#token();
      // Meanwhile it may have been given up, or closed for good.
      if (this.#next !== line) return;
      line.token = token;
      line.socket = new this.#WebSocket(url, [SUB_PROTOCOL]);
    } catch (error) {
      this.#emit("error", toError(error));
      this.#lose(line, 1006, "dial_failed");
      return;
    }
    line.socket.binaryType = "arraybuffer";
    line.socket.onopen = () => {
      if (line.token !== undefined) say(line, { type: "hello", token: line.token });
    };
    line.socket.onmessage = ({ data }) => this.#receive(line, data);
    line.socket.onclose = ({ code, reason }) => this.#lose(line, code, String(reason ?? ""));
    // A close follows every error, and says more.
    line.socket.onerror = () => {};
  }

  async #token() {
    const { token } = this.#options;
    return typeof token === "function" ? await token() : token;
  }

  #admit(line, welcome) {
    if (line !== this.#next) return;
    clearTimeout(line.deadline);
    line.welcome = welcome;
    const old = this.#line;
    this.#line = line;
    this.#next = null;
    this.#clear("dial");
    if (old) this.#hearOut(old);
    this.#set("stable", STABLE_AFTER_MS, () => (this.#ceiling = BACKOFF_FIRST_MS));
    this.#scheduleBeat(line);
    this.#scheduleRefresh(line, line.token);
    if (this.#watchers.size > 0) this.#sayWatch("watch");
    this.#turn("open");
    this.#emit("open", { ...welcome, isHandover: Boolean(old) });
    this.#flushRequests();
  }

  /** What the node wrote to the old line before the new one was there is on its way; a socket that is closed here drops it. */
  #hearOut(line) {
    if (this.#old) this.#lose(this.#old, 1000, "");
    clearTimeout(line.beat);
    clearTimeout(line.pong);
    this.#old = line;
    line.deadline = setTimeout(() => this.#lose(line, 1000, ""), LINGER_MS);
  }

  /** A line ended, or is given up. */
  #lose(line, code, reason) {
    const [isLive, isNext, isOld] = [this.#line, this.#next, this.#old].map((own) => own === line);
    if (!isLive && !isNext && !isOld) return;
    this.#detach(line);
    // Where the far end is dead, the socket may take a minute to close. Nobody waits for it.
    if (line.socket && line.socket.readyState < 2) line.socket.close(1000);
    if (isOld) {
      this.#old = null;
      this.#failRequests(line);
      return;
    }
    if (isLive) {
      this.#line = null;
      this.#clear("stable");
      this.#clear("refresh");
    } else {
      this.#next = null;
    }
    this.#failRequests(line);
    // In a hand-over the other line may live on; that the new one replaced the old one is what was wanted.
    const isExpected = comesBack(code, reason) || (isLive && code === REPLACED);
    if (isLive && this.#next && isExpected) {
      this.#turn("connecting");
    } else if (isNext && this.#line && isExpected) {
      this.#dialAfter(this.#backoff());
      this.#flushRequests();
    } else {
      this.#retry(line, code, reason);
    }
  }

  /** There is no line. Comes back if the code says so, at the time that a go-away named if there was one. */
  #retry(line, code, reason) {
    const reconnects = comesBack(code, reason);
    const opened = Boolean(line.welcome);
    if (!reconnects) {
      this.#stop();
      this.#emit("close", { code, reason, opened, reconnects, retryInMs: null });
      return;
    }
    let retryInMs = null;
    if (!this.#timers.dial) {
      retryInMs = this.#backoff();
      this.#dialAfter(retryInMs);
    }
    this.#turn("waiting");
    this.#emit("close", { code, reason, opened, reconnects, retryInMs });
  }

  #backoff() {
    const wait = Math.random() * this.#ceiling;
    this.#ceiling = Math.min(this.#ceiling * 2, BACKOFF_LAST_MS);
    return wait;
  }

  #dialAfter(ms, url = this.#url) {
    this.#set("dial", ms, () => {
      this.#clear("dial");
      if (!this.#line) this.#turn("connecting");
      this.#dial(url);
    });
  }

  #detach(line) {
    clearTimeout(line.deadline);
    clearTimeout(line.beat);
    clearTimeout(line.pong);
    if (line.socket) line.socket.onopen = line.socket.onmessage = line.socket.onclose = null;
  }

  #stop() {
    for (const name of Object.keys(this.#timers)) this.#clear(name);
    for (const line of [this.#line, this.#next, this.#old].filter(Boolean)) {
      this.#detach(line);
      line.socket?.close(1000);
    }
    this.#line = this.#next = this.#old = null;
    this.#removeListeners();
    for (const request of [...this.#requests.values()]) {
      request.fail(new TautlineError({ code: "closed", message: "the line was closed for good" }));
    }
    this.#turn("closed");
  }

  // Frames

  #receive(line, text) {
    line.hasHeard = true;
    clearTimeout(line.pong);
    line.pong = null;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch (error) {
      this.#emit("error", toError(error));
      return;
    }
    switch (frame?.type) {
      case "welcome":
        return this.#admit(line, frame);
      case "message":
        return this.#message(line, frame);
      case "goaway":
        return this.#leave(line, frame);
      case "presence":
        return this.#presence(frame);
      case "reply":
      case "devices":
      case "error":
        return this.#answer(frame);
      case "pong":
      default: // Types of a newer node.
    }
  }

  #message(line, frame) {
    const id = frame.message_id;
    if (id !== undefined) {
      const seen = this.#seen.get(id);
      if (seen) {
        // It came over both lines of a hand-over. Its acknowledgement may have been lost with the first.
        if (seen.ack) this.#sayAck(line, seen.ack);
        return;
      }
    }
    const note = { ack: null };
    if (id !== undefined) {
      this.#seen.set(id, note);
      if (this.#seen.size > SEEN_MAX) this.#seen.delete(this.#seen.keys().next().value);
    }
    const wantsAck = frame.ack === true;
    const ack = (data) => {
      if (!wantsAck || note.ack) return;
      note.ack = { type: "ack", message_id: id, data };
      this.#sayAck(line, note.ack);
    };
    const { type: _, data_b64, ...rest } = frame;
    const data = data_b64 === undefined ? frame.data : bytesOf(data_b64);
    // preventDefault() keeps the acknowledgement back: the listener calls ack() when it is done.
    if (this.#emit("message", { ...rest, data, ack, wantsAck }, true)) ack();
  }

  #sayAck(line, ack) {
    const open = [line, this.#line].find((candidate) => candidate?.socket.readyState === 1);
    if (open) say(open, ack);
  }

  /** The node asks this line to go: the new one is made first, and this one is closed when that is there. */
  #leave(line, frame) {
    this.#emit("goaway", frame);
    if (line !== this.#line || line.goaway) return;
    line.goaway = frame;
    const latest = Math.max(0, Number(frame.deadline_ms) || 0) * HANDOVER_SHARE;
    const wait = Math.min(Math.max(0, Number(frame.reconnect_after_ms) || 0), latest);
    this.#dialAfter(wait, this.#elsewhere(frame.url));
  }

  /** Where a go-away points to; never from an encrypted line to a plain one. */
  #elsewhere(url) {
    if (typeof url !== "string") return this.#url;
    try {
      const found = webSocketUrl(url, this.#url);
      return this.#url.startsWith("wss:") && !found.startsWith("wss:") ? this.#url : found;
    } catch {
      return this.#url;
    }
  }

  #presence(frame) {
    const { type: _, ...presence } = frame;
    const devices = this.#pages ?? (this.#devices ??= new Map());
    if (presence.state === "offline") devices.delete(presence.device_id);
    else devices.set(presence.device_id, presence.state);
    if (!this.#pages) this.#tellAll(presence);
    this.#emit("presence", presence);
  }

  /** A page of what is watched. */
  #page({ devices, more }) {
    this.#pages ??= new Map();
    for (const { device_id, state } of devices) this.#pages.set(device_id, state);
    if (more) return;
    this.#devices = this.#pages;
    this.#pages = null;
    this.#tellAll(null);
  }

  #tellAll(change) {
    for (const watcher of [...this.#watchers]) this.#tell(watcher, change);
  }

  #tell({ callback }, change) {
    try {
      callback(Array.from(this.#devices, ([device_id, state]) => ({ device_id, state })), change);
    } catch (error) {
      this.#emit("error", toError(error));
    }
  }

  #sayWatch(type) {
    this.#pages = null;
    const answered = this.#request({ type }, REPLY_TIMEOUT_MS);
    answered.catch((error) => {
      // With the line or the wish gone there is nothing to tell.
      if (!["line_lost", "closed"].includes(error.code)) this.#emit("error", error);
    });
  }

  // Requests

  #request(frame, timeoutMs, signal) {
    return new Promise((resolve, reject) => {
      const fail = (code, message, retryable) => reject(new TautlineError({ code, message, retryable }));
      if (signal?.aborted) return fail("aborted", "given up by the caller");
      if (this.#state === "closed") return fail("closed", "the line was closed for good");
      if (this.#requests.size >= REQUESTS_MAX) return fail("overloaded", "too many requests wait for a reply", true);
      const id = String((this.#requestId += 1));
      const settle = (act) => (value) => {
        clearTimeout(request.timer);
        signal?.removeEventListener("abort", request.abort);
        if (this.#requests.delete(id)) act(value);
      };
      const request = { text: JSON.stringify({ ...frame, id }), line: null, done: settle(resolve), fail: settle(reject) };
      const giveUp = (code, message) => request.fail(new TautlineError({ code, message, retryable: code === "timeout" }));
      request.abort = () => giveUp("aborted", "given up by the caller");
      request.timer = setTimeout(() => giveUp("timeout", "no reply in time"), Math.min(timeoutMs, TIMER_MAX_MS));
      signal?.addEventListener("abort", request.abort);
      this.#requests.set(id, request);
      this.#flushRequests();
    });
  }

  /** Sends what waits for a line. While a new one is made the old one gets nothing more: replies would be cut off. */
  #flushRequests() {
    const line = this.#line;
    if (!line || this.#next || line.socket.readyState !== 1) return;
    const max = line.welcome.max_message_bytes ?? Infinity;
    for (const request of [...this.#requests.values()].filter((request) => !request.line)) {
      // The node would close the line for it.
      if (new TextEncoder().encode(request.text).length > max) {
        const message = `a frame may have ${max} bytes on this node`;
        request.fail(new TautlineError({ code: "payload_too_large", message }));
        continue;
      }
      request.line = line;
      sayText(line, request.text);
    }
  }

  #answer(frame) {
    if (frame.more !== undefined) this.#page(frame);
    // More pages follow.
    if (frame.more) return;
    const request = this.#requests.get(frame.id);
    const error = frame.error && new TautlineError(frame.error, frame.message_id);
    if (error && request) request.fail(error);
    else if (error) this.#emit("error", error);
    else request?.done(frame);
  }

  #failRequests(line) {
    for (const request of [...this.#requests.values()].filter((request) => request.line === line)) {
      const message = "the line ended before the reply; whether it was carried out is unknown";
      request.fail(new TautlineError({ code: "line_lost", message }));
    }
  }

  // Heartbeat, tokens, the page

  #scheduleBeat(line) {
    const every = line.welcome.ping_ms * PING_SHARE;
    if (this.#options.heartbeat === false || !(every > 0)) return;
    line.beat = setTimeout(() => {
      if (!(line.hasSaid && line.hasHeard)) this.#probe(line, PONG_TIMEOUT_MS);
      line.hasSaid = line.hasHeard = false;
      this.#scheduleBeat(line);
    }, Math.min(every, TIMER_MAX_MS));
  }

  /** Asks whether the line lives. */
  #probe(line, timeoutMs) {
    if (line.pong) return;
    say(line, { type: "ping" });
    line.pong = setTimeout(() => this.#lose(line, 4003, "pong_timeout"), timeoutMs);
  }

  /** Renews the token on the live line before it ends. Only a function can give a new one. */
  #scheduleRefresh(line, token) {
    const expires = typeof this.#options.token === "function" ? expiryMs(token) : null;
    if (expires === null) return;
    // The node's clock counts: a device's is often wrong.
    line.clockMs ??= line.welcome.server_time_ms;
    const left = expires - line.clockMs;
    if (!(left > 0)) return;
    this.#refreshAfter(line, Math.max(left * REFRESH_SHARE, REFRESH_MIN_MS));
  }

  #refreshAfter(line, wait) {
    const ms = Math.min(wait, TIMER_MAX_MS);
    this.#set("refresh", ms, async () => {
      line.clockMs += ms;
      let token;
      try {
        token = await this.#token();
      } catch (error) {
        this.#emit("error", toError(error));
      }
      if (line !== this.#line) return;
      if (token === undefined || token === line.token) {
        this.#refreshAfter(line, REFRESH_RETRY_MS);
        return;
      }
      line.token = token;
      say(line, { type: "refresh", token });
      this.#scheduleRefresh(line, token);
    });
  }

  /** A page that is shown again, or a network that came back, is a reason to look. */
  #listenToPage() {
    const look = () => {
      if (globalThis.document?.visibilityState === "hidden") return;
      if (this.#line && this.#options.heartbeat !== false) this.#probe(this.#line, PROBE_TIMEOUT_MS);
      else if (this.#state === "waiting") this.#dialAfter(Math.random() * BACKOFF_FIRST_MS);
    };
    const targets = [
      [globalThis, "online"],
      [globalThis.document, "visibilitychange"],
    ].filter(([target]) => typeof target?.addEventListener === "function");
    for (const [target, type] of targets) target.addEventListener(type, look);
    return () => {
      for (const [target, type] of targets) target.removeEventListener(type, look);
    };
  }

  // Small things

  #set(name, ms, act) {
    this.#clear(name);
    this.#timers[name] = setTimeout(act, Math.min(ms, TIMER_MAX_MS));
  }

  #clear(name) {
    clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  #turn(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#emit("state", state);
  }

  /** False when a listener called preventDefault. */
  #emit(type, detail, cancelable = false) {
    return this.dispatchEvent(new CustomEvent(type, { detail, cancelable }));
  }
}

function say(line, frame) {
  sayText(line, JSON.stringify(frame));
}

function sayText(line, text) {
  if (line.socket.readyState !== 1) return;
  line.hasSaid = true;
  line.socket.send(text);
}

/** http becomes ws, and a path is relative to the page. */
function webSocketUrl(url, base) {
  const absolute = new URL(url, base);
  if (absolute.protocol === "http:") absolute.protocol = "ws:";
  if (absolute.protocol === "https:") absolute.protocol = "wss:";
  if (!["ws:", "wss:"].includes(absolute.protocol)) throw new TypeError(`not the URL of a WebSocket: ${url}`);
  absolute.hash = "";
  return absolute.href;
}

/** The members of a frame that carry a payload: bytes go as base64. */
function payload(data) {
  const isBytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
  if (!isBytes) return { data: data === undefined ? null : data };
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return { data_b64: btoa(binary) };
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** When a JWT ends; null for what is none. Nothing is verified: the node does that. */
function expiryMs(token) {
  try {
    const [, claims] = token.split(".");
    const { exp } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/")));
    return typeof exp === "number" ? exp * 1_000 : null;
  } catch {
    return null;
  }
}

function toError(error) {
  return error instanceof Error ? error : new Error(String(error));
}
