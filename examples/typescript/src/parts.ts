// Joins the pieces of streamed text, whichever way they were split, repeated or cut off
// (docs/protocol.md, "Streaming text").
import type { Event, SnapshotKind } from "./protocol.js";

/** What kind of text a part holds. */
export type StreamKind = Exclude<SnapshotKind, "toolInput">;

/** A part of a message, each time its text changes. */
export interface Text {
  messageId: string;
  partId: string;
  kind: StreamKind;
  /** All of it. */
  text: string;
  /** How much of the start of `text` is as it was the last time: what follows is new. */
  kept: number;
  /** Whether this is all that will come. */
  isComplete: boolean;
}

interface Progress {
  messageId: string;
  kind: StreamKind;
  gen: number;
  text: string;
  /** The length of `text` in bytes of UTF-8, in which offsets count. */
  bytes: number;
  isComplete: boolean;
  /** Whether a snapshot was asked for and did not come yet. */
  isAsked: boolean;
}

/** Most parts that are remembered, so that a late piece of one that ended is not taken for a new one. */
const PARTS_MAX = 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The parts of one room. */
export class Parts {
  #known = new Map<string, Progress>();

  /** `ask` is called with the part whose text has a gap: only a snapshot of it helps. */
  constructor(private ask: (partId: string) => void) {}

  /** What an event does to texts; nothing when that is known already. */
  apply(event: Event): Text[] {
    if (event.type === "message.complete" || event.type === "message.error") {
      return this.#dropOpen(event.payload.messageId);
    }
    const text = this.#change(event);
    return text ? [text] : [];
  }

  /** Forgets everything, because a snapshot of the session takes its place. */
  clear(): void {
    this.#known.clear();
  }

  /** A message ended: what the server did not complete of it by then is lost. */
  #dropOpen(messageId: string): Text[] {
    const open = [...this.#known].filter(([, part]) => part.messageId === messageId && !part.isComplete);
    return open.map(([partId, part]) => {
      part.isComplete = true;
      return this.#replace(partId, part, "");
    });
  }

  #change(event: Event): Text | undefined {
    switch (event.type) {
      case "message.text.delta":
      case "message.reasoning.delta": {
        const { messageId, partId, gen, offset, delta } = event.payload;
        const kind = event.type === "message.text.delta" ? "text" : "reasoning";
        return this.#piece(partId, this.#part(partId, messageId, kind), gen, offset, delta);
      }
      case "message.part.snapshot": {
        const { messageId, partId, kind, gen, text } = event.payload;
        // The arguments of a call are no text: `message.tool.call` has them whole.
        if (kind === "toolInput") return undefined;
        const part = this.#part(partId, messageId, kind);
        // One that was overtaken by the pieces after it says nothing new.
        const isOld = gen < part.gen || (gen === part.gen && part.text.startsWith(text));
        part.isAsked = false;
        if (part.isComplete || isOld) return undefined;
        part.gen = gen;
        return this.#replace(partId, part, text);
      }
      case "message.text.complete":
      case "message.reasoning.complete": {
        const { messageId, partId, text } = event.payload;
        const kind = event.type === "message.text.complete" ? "text" : "reasoning";
        const part = this.#part(partId, messageId, kind);
        part.isComplete = true;
        return this.#replace(partId, part, text);
      }
      case "message.part.removed": {
        const { messageId, partId } = event.payload;
        const part = this.#part(partId, messageId, "text");
        part.isComplete = true;
        return this.#replace(partId, part, "");
      }
      default:
        return undefined;
    }
  }

  #part(partId: string, messageId: string, kind: StreamKind): Progress {
    let part = this.#known.get(partId);
    if (!part) {
      part = { messageId, kind, gen: 0, text: "", bytes: 0, isComplete: false, isAsked: false };
      this.#known.set(partId, part);
      const oldest = this.#known.keys().next().value;
      if (this.#known.size > PARTS_MAX && oldest !== undefined) this.#known.delete(oldest);
    }
    return part;
  }

  #piece(partId: string, part: Progress, gen: number, offset: number, delta: string): Text | undefined {
    if (part.isComplete || gen < part.gen) return undefined;
    // A part that starts over has nothing yet.
    const have = gen > part.gen ? 0 : part.bytes;
    if (offset > have) {
      if (!part.isAsked) this.ask(partId);
      part.isAsked = true;
      return undefined;
    }
    if (gen > part.gen) {
      part.gen = gen;
      return this.#replace(partId, part, delta);
    }
    const fresh = encoder.encode(delta).subarray(have - offset);
    if (fresh.length === 0) return undefined;
    const kept = part.text.length;
    part.text += decoder.decode(fresh);
    part.bytes += fresh.length;
    return this.#told(partId, part, kept);
  }

  #replace(partId: string, part: Progress, text: string): Text {
    const kept = text.startsWith(part.text) ? part.text.length : 0;
    part.text = text;
    part.bytes = encoder.encode(text).length;
    return this.#told(partId, part, kept);
  }

  #told(partId: string, part: Progress, kept: number): Text {
    const { messageId, kind, text, isComplete } = part;
    return { messageId, partId, kind, text, kept, isComplete };
  }
}
