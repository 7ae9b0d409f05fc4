// What the Node scripts share: payloads, the sending side, and the lines the test command counts.

export const devices = process.env.TAUTLINE_TEST_DEVICES;
export const ops = process.env.TAUTLINE_TEST_OPS;
const api = process.env.TAUTLINE_TEST_API;
const TIMEOUT_MS = 10_000;

// Spaces, an escape, a repeated key and a number no double holds: JSON must arrive as it was sent.
export const JSON_TEXT = '{ "b": 1.0, "a" : "\\u00e9 \u{1F600}", "a": 12345678901234567890123 }';
export const UNICODE = "Grüße 👋🏽 \u2028 日本語";
export const BINARY = Uint8Array.from({ length: 256 }, (_, i) => i);
export const LARGE = "0123456789abcdef".repeat(3_750); // 60,000 bytes

/** Pushes to a device and returns the result; throws unless the message was written, or reached what else is asked. */
export async function push(device, body, contentType = "text/plain", level = "written", query = "") {
  const answer = await fetch(`http://${api}/v1/devices/${device}/messages${query}`, {
    method: "POST",
    headers: { "content-type": contentType },
    body,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const result = await answer.json();
  assert(answer.status === 200 && result.result === level, { status: answer.status, result });
  return result;
}

export function assert(holds, found) {
  if (!holds) throw new Error(JSON.stringify(found)?.slice(0, 300) ?? String(found));
}

/** The promise, or an error when it takes too long. */
export function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs the checks one after the other and says how each ended. */
export async function run(checks) {
  for (const check of checks) {
    try {
      await check();
      console.log(`ok - ${check.name}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`not ok - ${check.name}: ${error.message}`);
    }
  }
}
