"""A client of Iris in Python. To run it: pip install "websockets>=14", then
IRIS_PASSWORD=... python examples/client.py you@example.com "What is in README.md?" [http://127.0.0.1:4747]"""
import asyncio, collections, json, os, sys, urllib.request, uuid, websockets
email, text, url = (sys.argv[1:] + ["http://127.0.0.1:4747"])[:3]
async def main():
    login = json.dumps({"email": email, "password": os.environ["IRIS_PASSWORD"]}).encode()
    request = urllib.request.Request(url + "/v1/auth/login", login, {"Content-Type": "application/json"})
    token = json.load(urllib.request.urlopen(request))["data"]["accessToken"]
    headers, early, project = {"Authorization": f"Bearer {token}"}, collections.deque(), None
    async with websockets.connect(url.replace("http", "ws", 1) + "/v1/ws", additional_headers=headers) as socket:
        async def call(operation, **payload):
            request = {"id": str(uuid.uuid4()), "type": operation, "projectId": project, "payload": payload}
            await socket.send(json.dumps(request))
            while (frame := json.loads(await socket.recv())).get("id") != request["id"]:
                early.append(frame)  # An event that came before the response.
            return frame["payload"] if frame["success"] else sys.exit(frame["error"]["message"])
        projects = (await call("project.list"))["projects"] or [(await call("project.create", name="python"))["project"]]
        project = projects[0]["id"]
        sessions = (await call("session.list"))["sessions"] or [(await call("session.create"))["session"]]
        session, event = sessions[0]["id"], {"type": None}
        await call("subscribe", rooms=[f"session:{session}"])
        run = (await call("session.message.send", sessionId=session, content=text))["runId"]
        while event["type"] != "run.completed" or event["payload"]["runId"] != run:
            event = early.popleft() if early else json.loads(await socket.recv())
            if event["type"] == "message.text.delta":
                print(event["payload"]["delta"], end="", flush=True)
            if event["type"] == "tool.approval.required":
                await call("tool.approve", sessionId=session, toolCallId=event["payload"]["toolCallId"])
        print(f"\n[{event['payload']['status']}]")
asyncio.run(main())
