// The project's own JavaScript client against a server whose lines live for two seconds: they are asked to go while
// messages come in.

import { assert, push, run } from "./check.mjs";
import { device, start } from "./js_line.mjs";

async function no_message_is_missed_or_seen_twice_while_lines_are_handed_over() {
  const { line, next, queues } = start(device("client-handover"));
  await next("open");
  const sent = [];
  while (queues.open.filter((welcome) => welcome.isHandover).length < 2) {
    sent.push((await push("client-handover", String(sent.length))).message_id);
  }
  while (queues.message.length < sent.length) queues.message.push(await next("message"));
  const seen = queues.message.map((message) => message.message_id);
  assert(JSON.stringify(seen) === JSON.stringify(sent), { seen: seen.length, sent: sent.length });
  assert(queues.close.length === 0, queues.close);
  line.close();
}

await run([no_message_is_missed_or_seen_twice_while_lines_are_handed_over]);
// A line that a failed check left open would keep this process alive.
process.exit();
