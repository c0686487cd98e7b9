import assert from "node:assert/strict";
import { test } from "node:test";

import { Parts } from "../src/parts.js";
import type { Event } from "../src/protocol.js";

const ids = { sessionId: "s", messageId: "m", partId: "p" };

function delta(gen: number, offset: number, delta: string): Event {
  return { type: "message.text.delta", payload: { ...ids, gen, offset, delta } };
}

function snapshot(gen: number, text: string): Event {
  const length = new TextEncoder().encode(text).length;
  return { type: "message.part.snapshot", payload: { ...ids, kind: "text", gen, length, text } };
}

test("the arguments of a call are no text", () => {
  const parts = new Parts(() => assert.fail("nothing is missing"));
  const call = { ...ids, toolName: "write", gen: 1 };
  const piece: Event = { type: "message.tool.input.delta", payload: { ...call, offset: 0, delta: "{" } };
  const whole: Event = { type: "message.part.snapshot", payload: { ...call, kind: "toolInput", length: 1, text: "{" } };
  assert.deepEqual([...parts.apply(piece), ...parts.apply(whole)], []);
});

test("pieces overlap, are missing and start over", () => {
  const asked: string[] = [];
  const parts = new Parts((partId) => asked.push(partId));
  const apply = (event: Event) => parts.apply(event).map(({ text, kept }) => [text, kept]);
  assert.deepEqual(apply(delta(1, 0, "grü")), [["grü", 0]]);
  // Offsets count bytes.
  assert.deepEqual(apply(delta(1, 2, "üße")), [["grüße", 3]]);
  assert.deepEqual(apply(delta(1, 0, "grü")), []);
  assert.deepEqual(apply(delta(1, 20, "later")), []);
  assert.deepEqual(apply(delta(1, 25, "later")), []);
  assert.deepEqual(asked, ["p"]);
  assert.deepEqual(apply(snapshot(1, "grü")), []);
  assert.deepEqual(apply(snapshot(1, "grüße an alle")), [["grüße an alle", 5]]);
  assert.deepEqual(apply(delta(2, 0, "neu")), [["neu", 0]]);
  assert.deepEqual(apply(delta(1, 3, "alt")), []);
});

test("what ends has the last word, and what never ended is gone", () => {
  const parts = new Parts(() => {});
  const apply = (event: Event) => parts.apply(event).map(({ text, isComplete }) => [text, isComplete]);
  assert.deepEqual(apply(delta(1, 0, "too much")), [["too much", false]]);
  const complete: Event = { type: "message.text.complete", payload: { ...ids, length: 3, text: "too", interrupted: true } };
  assert.deepEqual(apply(complete), [["too", true]]);
  assert.deepEqual(apply(delta(1, 3, " late")), []);
  const other = { ...ids, partId: "q", gen: 1, offset: 0, delta: "lost" };
  assert.deepEqual(apply({ type: "message.text.delta", payload: other }), [["lost", false]]);
  const error = { code: "CANCELLED", message: "", retryable: false } as const;
  const end = { type: "message.error", payload: { sessionId: "s", messageId: "m", error } } as Event;
  assert.deepEqual(apply(end), [["", true]]);
});
