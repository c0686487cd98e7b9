"""A client of Iris that comes back by itself, for asyncio and the package `websockets`.

Calls are repeated with their idempotency keys, and each room goes on after the last event that was
heard, so that none is missed and none comes twice (docs/protocol.md).
"""

import asyncio
import json
import random
import re
import urllib.request
import uuid
from dataclasses import dataclass, field

import websockets

from parts import Parts

# Closes after which the same would happen again are not in here (docs/protocol.md, "Close codes");
# 1001, 1005, 1006 and 1013 come from what stands between client and server.
COME_BACK = {1001, 1005, 1006, 1011, 1012, 1013, 4008, 4012, 4029, 4402, 4409}
NOT_AUTHENTICATED = 4401
# Refusals of a room that pass.
PASSING = {"OVERLOADED", "RATE_LIMITED", "SHUTTING_DOWN", "CONFLICT"}
BACKOFF_FIRST, BACKOFF_MAX = 0.25, 15.0
# How long after a heartbeat was due the connection counts as lost, in seconds.
SILENCE_GRACE = 20.0


class CallError(Exception):
    """The server refused a call; `error` is the error of docs/protocol.md."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.error = error


class Closed(Exception):
    """The client ended, and would not come back by itself."""

    def __init__(self, code, reason):
        super().__init__(f"closed with {code}: {reason}")
        self.code, self.reason = code, reason


def rest(url, method, path, body=None, token=None):
    """Sends a REST request and answers its `data`. Blocks."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["data"]


def wait_after(reason, failures):
    """How long to wait after a close: as long as the server asks for, and longer after each failure."""
    at_least = re.search(r"retryAfterMs\D*(\d+)", reason)
    return max(backoff(failures), int(at_least[1]) / 1000 if at_least else 0)


def backoff(failures):
    """Doubles with each failure up to a bound; half of it is random."""
    full = min(BACKOFF_FIRST * 2 ** min(failures - 1, 16), BACKOFF_MAX)
    return full / 2 + random.random() * full / 2


@dataclass
class Room:
    """A room that is followed. `async for` gives its events, and each `Part` whose text changed."""

    client: "Client"
    name: str
    project: str
    reset: object
    epoch: str | None = None
    seq: int | None = None
    parts: Parts = field(default_factory=Parts)
    happened: asyncio.Queue = field(default_factory=asyncio.Queue)
    joining: asyncio.Task | None = None

    def __aiter__(self):
        return self

    async def __anext__(self):
        happened = await self.happened.get()
        if isinstance(happened, Exception):
            raise happened
        return happened

    def join(self):
        """Joins the room after what was heard of it, unless that is under way."""
        if self.joining is None or self.joining.done():
            self.joining = asyncio.create_task(self._join())

    async def _join(self):
        try:
            failures = 0
            while (code := await self._subscribe()) is not None:
                if code not in PASSING:
                    raise CallError({"code": code, "message": f"{self.name} cannot be heard"})
                failures += 1
                await asyncio.sleep(backoff(failures))
        except Exception as error:
            self.client.rooms.pop(self.name, None)
            self.happened.put_nowait(error)

    async def _subscribe(self):
        """Asks until the server has the position. Answers the code of a refusal."""
        while True:
            if self.epoch is None and self.reset:
                position = await self.reset()
                self.epoch, self.seq = position["epoch"], position["seq"]
            since = None if self.epoch is None else {"epoch": self.epoch, "seq": self.seq}
            rooms = [{"room": self.name, "since": since}]
            try:
                [outcome] = (await self.client.call("subscribe", self.project, rooms=rooms))["rooms"]
            except CallError as error:
                return error.error["code"]
            if outcome["status"] in ("live", "replayed"):
                self.epoch, self.seq = outcome["epoch"], max(self.seq or 0, outcome["to"])
                return None
            if outcome["status"] == "refused":
                return outcome["code"]
            self.epoch = self.seq = None
            self.parts.clear()

    def heard(self, event):
        """Passes an event on, if it is the next one."""
        if (seq := event.get("seq")) is not None:
            if self.seq is not None and seq <= self.seq:
                return
            if self.seq is not None and event["prev"] > self.seq:
                return self.join()  # What is missing comes again, and this event after it.
            self.seq = seq
        for part in self.parts.change(event["type"], event["payload"]):
            if part.is_cut:
                self.client.ask(self.project, part.id)
            else:
                self.happened.put_nowait(part)
        if not re.search(r"\.delta$|^message\.part\.", event["type"]):
            self.happened.put_nowait(event)

    def compare(self, last):
        """A heartbeat comes behind all events up to it: whoever is not as far has missed some."""
        if self.seq is not None and (last["epoch"] != self.epoch or last["seq"] > self.seq):
            self.join()


class Client:
    """Connects in `async with`. `refresh` gets a new access token; without it the client ends with its own."""

    def __init__(self, url, token, refresh=None):
        self.url, self.token, self.refresh = url, token, refresh
        self.rooms = {}
        self.connections = 0
        self._calls = {}
        self._tasks = set()
        self._socket = None
        self._ended = None
        self._running = None

    async def __aenter__(self):
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._stopped)
        return self

    async def __aexit__(self, *_):
        tasks = [self._running, *self._tasks, *(r.joining for r in self.rooms.values() if r.joining)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end(Closed(1000, "closed by the client"))

    async def call(self, operation, project=None, key=None, **payload):
        """Runs an operation and answers its payload. A connection that is lost before the answer does not
        end it: the request is sent again with its key, so that it is done once."""
        if self._ended:
            raise self._ended
        request = {"id": str(uuid.uuid4()), "type": operation, "projectId": project, "payload": payload}
        request["idempotencyKey"] = key or request["id"]
        answered = asyncio.get_running_loop().create_future()
        self._calls[request["id"]] = (request, answered)
        try:
            if self._socket:
                await self._send(self._socket, request)
            return await answered
        finally:
            self._calls.pop(request["id"], None)

    def follow(self, room, project, since=None, reset=None):
        """Follows a room through every loss of the connection. `reset` takes a snapshot and answers its
        `asOf`: at the start without `since`, and when the server does not have every event any more."""
        followed = Room(self, room, project, reset)
        if since:
            followed.epoch, followed.seq = since["epoch"], since["seq"]
        self.rooms[room] = followed
        if self._socket:
            followed.join()
        return followed

    def ask(self, project, part):
        """Asks for a snapshot of a part. One that streams no more is refused; its end has all of it."""
        self._spawn(self.call("message.part.sync", project, partId=part))

    def _spawn(self, work):
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: (self._tasks.discard(task), task.cancelled() or task.exception()))

    @staticmethod
    async def _send(socket, request):
        try:
            await socket.send(json.dumps(request))
        except websockets.ConnectionClosed:
            pass  # It is sent again on the next connection.

    async def _run(self):
        failures = 0
        while True:
            before = self.connections
            code, reason = await self._connection()
            self._socket = None
            failures = 1 if self.connections > before else failures + 1
            is_refused = code == NOT_AUTHENTICATED and self.refresh
            if code not in COME_BACK and not is_refused:
                return self._end(Closed(code, reason))
            await asyncio.sleep(wait_after(reason, failures))
            if is_refused:
                try:
                    self.token = await self.refresh()
                except Exception as error:
                    return self._end(Closed(code, str(error)))

    async def _connection(self):
        """One connection, from its beginning to its end. Answers its close code and reason."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url, silence = self.url.replace("http", "ws", 1) + "/v1/ws", SILENCE_GRACE
        try:
            async with websockets.connect(url, additional_headers=headers, max_size=None) as socket:
                while True:
                    async with asyncio.timeout(silence):
                        frame = json.loads(await socket.recv())
                    if frame["type"] == "connected":
                        interval = frame["payload"]["pingIntervalMs"]
                        silence = interval / 1000 + SILENCE_GRACE if interval else None
                    await self._receive(socket, frame)
        except websockets.ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "lost")
        except websockets.InvalidStatus as refused:
            status, wait = refused.response.status_code, refused.response.headers.get("Retry-After", "0")
            if status == 401:
                return NOT_AUTHENTICATED, "not authenticated"
            is_passing = status == 429 or status >= 500
            return (1013, f"retryAfterMs={wait}000") if is_passing else (1002, f"refused with {status}")
        except (OSError, EOFError, TimeoutError, websockets.InvalidMessage) as error:
            return 1006, str(error)

    async def _receive(self, socket, frame):
        name, payload = frame["type"], frame.get("payload")
        if name == "connected":
            self._socket = socket
            self.connections += 1
            for request, _ in list(self._calls.values()):
                await self._send(socket, request)
            for room in self.rooms.values():
                room.join()
        elif name == "response":
            _, answered = self._calls.get(frame["id"], (None, None))
            if answered and not answered.done():
                error = None if frame["success"] else CallError(frame["error"])
                answered.set_exception(error) if error else answered.set_result(payload)
        elif name == "heartbeat":
            for name, last in payload["rooms"].items():
                if name in self.rooms:
                    self.rooms[name].compare(last)
        elif name == "auth.expiring":
            if self.refresh:
                self._spawn(self._renew())
        elif name == "room.left":
            if room := self.rooms.get(payload["room"]):
                room.join()  # The answer says whether it can be heard again.
        elif room := self.rooms.get(frame.get("room")):
            room.heard(frame)

    async def _renew(self):
        self.token = await self.refresh()
        await self.call("auth.refresh", token=self.token)

    def _stopped(self, running):
        if not running.cancelled() and running.exception():
            self._end(running.exception())

    def _end(self, closed):
        self._ended = self._ended or closed
        for _, answered in self._calls.values():
            if not answered.done():
                answered.set_exception(closed)
        for room in self.rooms.values():
            room.happened.put_nowait(closed)
