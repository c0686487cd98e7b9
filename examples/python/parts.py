"""Joins the pieces of streamed text, whichever way they were split, repeated or cut off
(docs/protocol.md, "Streaming text")."""

import re
from dataclasses import dataclass, replace

# Most parts that are remembered, so that a late piece of one that ended is not taken for a new one.
PARTS_MAX = 1024


@dataclass
class Part:
    """A text that streams. `kept` characters of its start are as they were the last time."""

    id: str
    message_id: str
    kind: str
    text: str = ""
    kept: int = 0
    gen: int = 0
    is_complete: bool = False
    # Whether text is missing that only a snapshot of the part brings; said once.
    is_cut: bool = False


class Parts:
    """The parts of one room."""

    def __init__(self):
        self._known = {}

    def clear(self):
        """Forgets everything, because a snapshot of the session takes its place."""
        self._known.clear()

    def change(self, name, payload):
        """The parts that an event changes, as they are now."""
        if name in ("message.complete", "message.error"):
            # What was not complete by then is lost.
            of_message = [p for p in self._known.values() if p.message_id == payload["messageId"]]
            return [self._set(part, "", True) for part in of_message if not part.is_complete]
        if not re.match(r"message\.(text|reasoning|part)\.", name):
            return []
        if payload.get("kind") == "toolInput":
            return []  # The arguments of a call are no text: `message.tool.call` has them whole.
        part = self._part(name, payload)
        gen = payload.get("gen", part.gen)
        if part.is_complete or gen < part.gen:
            return []
        if name == "message.part.removed":
            return [self._set(part, "", True)]
        if name.endswith(".complete"):
            return [self._set(part, payload["text"], True)]
        if name == "message.part.snapshot":
            part.is_cut = False
            # One that was overtaken by the pieces after it says nothing new.
            is_old = gen == part.gen and part.text.startswith(payload["text"])
            part.gen = gen
            return [] if is_old else [self._set(part, payload["text"])]
        return self._append(part, gen, payload["offset"], payload["delta"])

    def _part(self, name, payload):
        kind = payload.get("kind") or name.split(".")[1]
        part = Part(payload["partId"], payload["messageId"], kind)
        part = self._known.setdefault(part.id, part)
        if len(self._known) > PARTS_MAX:
            del self._known[next(iter(self._known))]
        return part

    def _append(self, part, gen, offset, delta):
        # A part that starts over has nothing yet.
        have = "" if gen > part.gen else part.text
        overlap = len(have.encode()) - offset
        if overlap < 0:
            was_cut, part.is_cut = part.is_cut, True
            return [] if was_cut else [replace(part)]
        part.gen = gen
        fresh = delta.encode()[overlap:].decode()
        return [self._set(part, have + fresh)] if fresh else []

    @staticmethod
    def _set(part, text, is_complete=False):
        part.kept = len(part.text) if text.startswith(part.text) else 0
        part.text, part.is_complete, part.is_cut = text, is_complete, False
        # A copy, since the part goes on before it is read.
        return replace(part)
