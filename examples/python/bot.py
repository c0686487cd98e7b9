"""A bot in a project: it says yes to tool calls by rule, leaves all others to people, and tells what happened when
somebody mentions it. To run it with an API key of an account that is a member of the project:
IRIS_TOKEN=iris_.. python bot.py prj_.. "write:notes/*" "edit:notes/*" [http://127.0.0.1:4747]

Each rule is TOOL:PATTERN; a call is approved when the tool is that one and each path of it is like the pattern. In a
session the bot listens to messages that begin with its name: "@bot summary"."""

import asyncio
import os
import sys
from collections import Counter
from fnmatch import fnmatchcase

from iris import CallError, Client
from parts import Part

HELP = "I know one word: summary"


class Bot:
    """Follows every session of a project, those that begin later too."""

    def __init__(self, client, project, rules):
        self.client, self.project = client, project
        self.rules = [tuple(rule.split(":", 1)) for rule in rules]
        self.sessions = {}
        self.me = None
        self.tasks = None

    async def run(self):
        """Works until the client ends."""
        self.me = (await self.client.call("user.get"))["user"]
        async with asyncio.TaskGroup() as self.tasks:
            # The list is as old as its position, from which on new sessions are told.
            listed = await self.client.call("session.list", self.project)
            room = self.client.follow(f"project:{self.project}", self.project, listed["asOf"], self.list)
            for session in listed["sessions"]:
                self.enter(session)
            async for event in room:
                if event["type"] == "session.created":
                    self.enter(event["payload"]["session"])

    async def list(self):
        """What is missing since a position that the server does not have any more."""
        listed = await self.client.call("session.list", self.project)
        for session in listed["sessions"]:
            self.enter(session)
        return listed["asOf"]

    def enter(self, session):
        if session["id"] not in self.sessions:
            self.sessions[session["id"]] = Counter()
            self.tasks.create_task(self.attend(session["id"]))

    async def attend(self, session):
        """Follows one session: calls that wait already, then everything that comes."""

        async def snapshot():
            found = await self.client.call("session.get", self.project, sessionId=session)
            for approval in found["approvals"]:
                await self.judge(approval)
            return found["asOf"]

        try:
            async for event in self.client.follow(f"session:{session}", self.project, reset=snapshot):
                if not isinstance(event, Part):
                    await self.hear(session, event["type"], event["payload"])
        except CallError as error:
            # The session is gone; all others go on.
            print(f"{session}: {error}", file=sys.stderr)

    async def hear(self, session, name, payload):
        if name == "tool.approval.required":
            await self.judge(payload["approval"])
        elif name == "run.completed":
            self.sessions[session][f"run {payload['status']}"] += 1
        elif name == "message.created" and payload["message"]["role"] == "user":
            await self.listen(session, payload["message"])

    async def judge(self, approval):
        """Says yes where a rule does. It never says no: that is for people."""
        if not self.is_allowed(approval):
            return
        answer = {"sessionId": approval["sessionId"], "toolCallId": approval["toolCallId"]}
        try:
            # The hash makes it a yes to these arguments and to no others.
            await self.client.call("tool.approve", self.project, inputHash=approval["inputHash"], **answer)
            self.sessions[approval["sessionId"]]["call approved"] += 1
        except CallError as error:
            if error.error["code"] not in ("CONFLICT", "NOT_FOUND"):
                raise  # Else somebody was faster.

    def is_allowed(self, approval):
        """Whether one rule covers all that a call touches."""
        path = approval["input"].get("path")
        # `..` would leave what the pattern names; what has more paths than this one is for people.
        if not isinstance(path, str) or ".." in path.split("/"):
            return False
        return any(tool == approval["toolName"] and fnmatchcase(path, like) for tool, like in self.rules)

    async def listen(self, session, message):
        """Answers who mentions it; never itself, or two bots would talk for ever."""
        text = "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        mention, _, word = text.partition(" ")
        if message.get("createdBy") == self.me["id"] or mention != f"@{self.me['username']}":
            return
        answer = self.summary(session) if word.strip() == "summary" else HELP
        await self.client.call("session.message.send", self.project, sessionId=session, content=answer)

    def summary(self, session):
        counts = self.sessions[session]
        lines = [f"{count} x {what}" for what, count in sorted(counts.items())]
        return "\n".join(["Since I came:", *(lines or ["nothing"])])


async def main(project, *rules):
    url = rules[-1] if rules and "://" in rules[-1] else "http://127.0.0.1:4747"
    rules = [rule for rule in rules if "://" not in rule]
    async with Client(url, os.environ["IRIS_TOKEN"]) as client:
        await Bot(client, project, rules).run()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
