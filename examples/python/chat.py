"""Sends one message to an agent and prints what it says. To run it: pip install -r requirements.txt, then
IRIS_PASSWORD=... python chat.py you@example.com "What is in README.md?" [http://127.0.0.1:4747]"""

import asyncio
import os
import sys

from iris import Client, rest
from parts import Part


async def main(email, text, url="http://127.0.0.1:4747"):
    grant = rest(url, "POST", "/v1/auth/login", {"email": email, "password": os.environ["IRIS_PASSWORD"]})

    async def refresh():
        nonlocal grant
        old = {"refreshToken": grant["refreshToken"]}
        grant = await asyncio.to_thread(rest, url, "POST", "/v1/auth/refresh", old)
        return grant["accessToken"]

    async with Client(url, grant["accessToken"], refresh) as client:
        projects = (await client.call("project.list"))["projects"]
        created = None if projects else await client.call("project.create", name="python")
        project = (projects or [created["project"]])[0]["id"]
        sessions = (await client.call("session.list", project))["sessions"]
        created = None if sessions else await client.call("session.create", project)
        session = (sessions or [created["session"]])[0]["id"]
        as_of = (await client.call("session.get", project, sessionId=session, limit=1))["asOf"]
        room = client.follow(f"session:{session}", project, since=as_of)
        run = (await client.call("session.message.send", project, sessionId=session, content=text))["runId"]
        async for happened in room:
            if isinstance(happened, Part):
                print(happened.text[happened.kept :], end="", flush=True)
            elif happened["type"] == "tool.approval.required":
                answer = await asyncio.to_thread(input, f"\n{happened['payload']['message']} [y/N] ")
                decide = "tool.approve" if answer == "y" else "tool.reject"
                call = happened["payload"]["toolCallId"]
                await client.call(decide, project, sessionId=session, toolCallId=call)
            elif happened["type"] == "run.completed" and happened["payload"]["runId"] == run:
                return print(f"\n[{happened['payload']['status']}]")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:4]))
