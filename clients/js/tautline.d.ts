/** The `welcome` frame, as docs/protocol.md has it. */
export interface Welcome {
  connection_id: string;
  device_id: string;
  node_id: string;
  session: string;
  resumed: boolean;
  ping_ms: number;
  max_message_bytes: number;
  max_age_ms: number;
  server_time_ms: number;
}

/** A `message`; bytes have become a Uint8Array. */
export interface Message {
  message_id: string;
  from: { service: string } | { device: string };
  data: unknown;
  topic?: string;
  offset?: number;
  /** Whether the sender waits for `ack`. */
  wantsAck: boolean;
  /** Acknowledges, with data for the sender if there is any. Happens by itself unless a listener calls preventDefault. */
  ack(data?: unknown): void;
}

export interface Close {
  code: number;
  reason: string;
  /** Whether the line had been welcomed. */
  opened: boolean;
  /** Whether the client comes back by itself. */
  reconnects: boolean;
  /** When; null if it does not, or when a go-away had named the time. */
  retryInMs: number | null;
}

export interface GoAway {
  reason: string;
  reconnect_after_ms: number;
  deadline_ms: number;
  url?: string;
}

export interface Presence {
  device_id: string;
  state: "online" | "offline" | "moving";
  cause?: string;
  at_ms: number;
}

/** A device of the account that has a line. */
export interface Device {
  device_id: string;
  state: "online" | "moving";
}

export interface Reply {
  id: string;
  message_id?: string;
  result?: string;
  level?: string;
  latency_ms?: number;
  data?: unknown;
  /** For a message to an account. */
  devices?: { targets: number; reached: number };
}

export type State = "connecting" | "open" | "waiting" | "closed";
export type Level = "queued" | "stored" | "written" | "acked";
export type Target = string | { device: string } | { user: string } | { topic: string };

export interface Options {
  /** The token, or what gives one: asked at each line, and to renew the token of a live one before it ends. */
  token?: string | (() => string | Promise<string>);
  /** For runtimes without one of their own, such as Node 20: that of npm's `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** False leaves it to the node to find dead lines. */
  heartbeat?: boolean;
  /** False waits for `connect()`. */
  connect?: boolean;
}

export interface SendOptions {
  /** The level to wait for; `written` when left out. */
  wait?: Level;
  timeoutMs?: number;
  ttlMs?: number;
  collapseKey?: string;
  signal?: AbortSignal;
}

export interface Events {
  open: CustomEvent<Welcome & { isHandover: boolean }>;
  message: CustomEvent<Message>;
  close: CustomEvent<Close>;
  goaway: CustomEvent<GoAway>;
  presence: CustomEvent<Presence>;
  state: CustomEvent<State>;
  error: CustomEvent<Error | TautlineError>;
}

export class TautlineError extends Error {
  /** A code of the protocol, or `timeout`, `line_lost`, `closed`, `aborted`. */
  code: string;
  retryable: boolean;
  messageId?: string;
}

export function comesBack(code: number, reason?: string): boolean;

export class Tautline extends EventTarget {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly welcome: Welcome | null;
  connect(): void;
  close(): void;
  send(to: Target, data: unknown, options?: SendOptions): Promise<Reply>;
  list(options?: { timeoutMs?: number; signal?: AbortSignal }): Promise<Device[]>;
  /** `change` is null when all were listed anew. */
  watch(callback: (devices: Device[], change: Presence | null) => void): () => void;
  addEventListener<K extends keyof Events>(
    type: K,
    listener: ((event: Events[K]) => void) | { handleEvent(event: Events[K]): void } | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
