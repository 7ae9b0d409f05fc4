// The same server in JavaScript, for comparisons: lines by device id, and a POST that reaches one. Usage: bun bun.js PING_SECONDS

const pingSeconds = Number(Bun.argv[2]);
const lines = new Map();

// Bun pings a margin before its idle timeout, which grows with it: 4, 8 or 16 seconds.
function idleTimeout(ping) {
  for (const margin of [4, 8, 16]) {
    const timeout = ping + margin;
    if (margin === 16 || timeout - 2 * margin < 2 * margin) return timeout;
  }
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  idleTimeout: 0,
  routes: {
    "/v1/devices/:device/messages": {
      async POST(request) {
        const line = lines.get(request.params.device);
        if (line === undefined) return new Response("", { status: 404 });
        return new Response("", { status: line.send(await request.text()) === 0 ? 503 : 200 });
      },
    },
  },
  fetch(request, server) {
    const query = new URL(request.url).searchParams;
    if (server.upgrade(request, { data: query.get("device_id") })) return;
    return new Response("", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    sendPings: true,
    idleTimeout: idleTimeout(pingSeconds),
    maxPayloadLength: 64 * 1024,
    open(line) {
      lines.set(line.data, line);
    },
    message() {},
    close(line) {
      if (lines.get(line.data) === line) lines.delete(line.data);
    },
  },
});

const address = `127.0.0.1:${server.port}`;
console.log(JSON.stringify({ event: "ready", devices: address, api: address }));
