"""The client against the real server: `IRIS=path/to/iris python -m unittest`."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from bot import Bot
from iris import BACKOFF_FIRST, CallError, Client, Closed, rest, wait_after
from parts import Part, Parts

IRIS = os.path.abspath(os.environ.get("IRIS", "../../target/debug/iris"))
SETUP_TOKEN = "a token for the first user"
LIMIT = 60


class Iris:
    """A running `iris serve` with the scripted model."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="iris-")
        self.start(0)

    def start(self, port):
        """Starts it on a port, 0 for a free one, with the data that it had."""
        command = [IRIS, "serve", "--bind", f"127.0.0.1:{port}", "--data-dir", self.dir]
        environment = {
            "IRIS_SETUP_TOKEN": SETUP_TOKEN,
            "IRIS_PROVIDERS__DEMO__KIND": "scripted",
            "IRIS_DEFAULT_MODEL": "demo/script",
        }
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.url = self.process.stdout.readline().strip().removeprefix("listening on ")
        self.port = int(self.url.rsplit(":", 1)[1])

    def set_up(self):
        account = {"email": "ann@example.com", "username": "ann", "password": "a long password"}
        grant = rest(self.url, "POST", "/v1/auth/setup", {"token": SETUP_TOKEN, **account})
        return grant["accessToken"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir)


class Wire:
    """A wire to a server that can be cut."""

    def __init__(self, port):
        self.port, self.ends = port, set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.cut()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    def cut(self):
        for end in self.ends:
            end.transport.abort()
        self.ends.clear()

    async def _join(self, near_in, near_out):
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.port)
        self.ends |= {near_out, far_out}
        await asyncio.gather(self._pass(near_in, far_out), self._pass(far_in, near_out))

    @staticmethod
    async def _pass(source, target):
        try:
            while data := await source.read(1 << 16):
                target.write(data)
        except ConnectionError:
            pass
        target.close()


class Talk:
    """A session that is followed, with all that was heard of it."""

    @classmethod
    async def begin(cls, client, project=None):
        talk = cls()
        talk.client, talk.events, talk.text, talk.resets = client, [], "", 0
        talk.project = project or (await client.call("project.create", name="p"))["project"]["id"]
        talk.session = (await client.call("session.create", talk.project))["session"]["id"]
        talk.as_of = (await talk.snapshot())["asOf"]
        talk.room = client.follow(f"session:{talk.session}", talk.project, talk.as_of, talk.reset)
        return talk

    def snapshot(self):
        return self.client.call("session.get", self.project, sessionId=self.session)

    async def reset(self):
        self.resets += 1
        return (await self.snapshot())["asOf"]

    async def send(self, content):
        sent = await self.client.call(
            "session.message.send", self.project, sessionId=self.session, content=content
        )
        return sent["runId"]

    async def until(self, is_it):
        """Listens until something that happens is it."""
        async for happened in self.room:
            if isinstance(happened, Part):
                self.text = happened.text
            else:
                self.events.append(happened)
            if is_it(happened):
                return happened

    async def event(self, name):
        is_it = lambda happened: not isinstance(happened, Part) and happened["type"] == name
        return (await self.until(is_it))["payload"]

    async def ended(self, run):
        while (payload := await self.event("run.completed"))["runId"] != run:
            pass
        return payload["status"]

    async def long(self, length):
        await self.until(lambda _: len(self.text) > length)

    async def stored(self):
        parts = (await self.snapshot())["messages"][-1]["parts"]
        return "".join(part["text"] for part in parts if part["type"] == "text")

    @property
    def numbers(self):
        return [event["seq"] for event in self.events if "seq" in event]


class ClientTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.iris = Iris()
        cls.token = cls.iris.set_up()

    @classmethod
    def tearDownClass(cls):
        cls.iris.remove()

    def _callTestMethod(self, method):
        async def bounded():
            async with asyncio.timeout(LIMIT):
                await method()

        return super()._callTestMethod(bounded)

    def client(self, url=None, token=None, refresh=None):
        return Client(url or self.iris.url, token or self.token, refresh)

    async def assert_whole(self, talk):
        """Everything that the log has since the first snapshot was heard, in order and once."""
        async with self.client() as client:
            room, numbers = client.follow(talk.room.name, talk.project, talk.as_of), []
            while numbers[-1:] != talk.numbers[-1:]:
                happened = await anext(room)
                if not isinstance(happened, Part) and "seq" in happened:
                    numbers.append(happened["seq"])
            self.assertEqual(talk.numbers, numbers)

    async def test_a_conversation_with_an_approval(self):
        async with self.client() as client:
            talk = await Talk.begin(client)
            run = await talk.send('call write {"path": "a.txt", "content": "1"}\nstep\nsay Written with care.')
            call = (await talk.event("tool.approval.required"))["toolCallId"]
            await client.call("tool.approve", talk.project, sessionId=talk.session, toolCallId=call)
            self.assertEqual(await talk.ended(run), "completed")
            self.assertEqual(talk.text, "Written with care.")
            file = await client.call("file.read", talk.project, path="a.txt")
            self.assertEqual(file["content"], "1")
            await self.assert_whole(talk)

    async def test_what_the_server_refuses_is_an_error(self):
        async with self.client() as client:
            with self.assertRaises(CallError) as refused:
                await client.call("project.create", name="")
        self.assertEqual(refused.exception.error["code"], "INVALID_REQUEST")
        with self.assertRaises(Closed):
            await client.call("ping")

    async def test_a_connection_that_is_cut_in_the_middle_of_a_run_costs_nothing(self):
        async with Wire(self.iris.port) as wire, self.client(wire.url) as client:
            talk = await Talk.begin(client)
            # Cut before the answer: the request is repeated, and done once.
            sending = asyncio.create_task(talk.send("delay 5\nchunks 300 grüße"))
            await asyncio.sleep(0)
            wire.cut()
            run = await sending
            for length in (20, 200, 600):
                await talk.long(length)
                wire.cut()
            self.assertEqual(await talk.ended(run), "completed")
            self.assertEqual(talk.text, "grüße " * 300)
            self.assertEqual(talk.text, await talk.stored())
            names = [event["type"] for event in talk.events]
            self.assertEqual(names.count("message.created"), 2)
            self.assertEqual(talk.resets, 0)
            self.assertGreater(client.connections, 1)
            await self.assert_whole(talk)

    async def test_a_client_finds_its_server_again_that_was_killed(self):
        async with self.client() as client:
            talk = await Talk.begin(client)
            # Killed before anything of the text was kept, and after.
            for length in (1, 600):
                run = await talk.send("delay 10\nchunks 10000 tick")
                await talk.long(length)
                self.iris.kill()
                # A call that is made meanwhile waits.
                asked = asyncio.create_task(client.call("user.get"))
                await asyncio.to_thread(self.iris.start, self.iris.port)
                self.assertEqual(await talk.ended(run), "interrupted")
                self.assertEqual((await asked)["user"]["username"], "ann")
                self.assertTrue(re.fullmatch("(tick )*", talk.text))
                self.assertEqual(talk.text, await talk.stored())
                self.assertEqual(len(talk.text) > 0, length > 1)
                await talk.ended(await talk.send("say still here"))
                self.assertEqual(talk.text, "still here")
            await self.assert_whole(talk)

    async def test_a_position_that_the_server_does_not_know_is_a_reset(self):
        async with self.client() as client:
            talk = await Talk.begin(client)
            await talk.ended(await talk.send("say one"))
            since = {"epoch": "another", "seq": 1}
            talk.room = client.follow(talk.room.name, talk.project, since, talk.reset)
            await talk.ended(await talk.send("say two"))
            self.assertEqual((talk.text, talk.resets), ("two", 1))

    async def test_a_token_that_is_refused_is_replaced_or_the_end(self):
        async def refresh():
            return self.token

        async with self.client(token="no token", refresh=refresh) as client:
            self.assertEqual((await client.call("user.get"))["user"]["username"], "ann")
        async with self.client(token="no token") as client:
            with self.assertRaises(Closed) as closed:
                await client.call("user.get")
        self.assertEqual(closed.exception.code, 4401)


class BotTest(unittest.IsolatedAsyncioTestCase):
    """A bot with an API key of its own account, in a project with a person."""

    async def asyncSetUp(self):
        self.iris = await asyncio.to_thread(Iris)
        self.addCleanup(self.iris.remove)
        token = await asyncio.to_thread(self.iris.set_up)
        self.ann = await self.enterAsyncContext(Client(self.iris.url, token))
        self.talk = await Talk.begin(self.ann)
        account = {"email": "bot@example.com", "username": "bot", "password": "a password of a bot"}
        user = await self.post("/v1/admin/users", account, token)
        member = {"userId": user["id"], "role": "member"}
        await self.post(f"/v1/projects/{self.talk.project}/members", member, token)
        login = {"email": account["email"], "password": account["password"]}
        grant = await self.post("/v1/auth/login", login)
        self.key = (await self.post("/v1/api-keys", {"name": "bot"}, grant["accessToken"]))["key"]

    async def post(self, *asked):
        return await asyncio.to_thread(rest, self.iris.url, "POST", *asked)

    async def start(self, *rules, url=None):
        client = await self.enterAsyncContext(Client(url or self.iris.url, self.key))
        bot = Bot(client, self.talk.project, rules)
        running = asyncio.create_task(bot.run())

        async def stop():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        self.addAsyncCleanup(stop)
        return bot

    async def answer(self, talk, text):
        """What the bot answers to a mention: a message of its own."""
        await talk.send(text)
        is_mine = True
        while is_mine:
            message = (await talk.event("message.created"))["message"]
            is_mine = message["role"] != "user" or message["parts"][0]["text"] == text
        return message["parts"][0]["text"]

    async def test_a_bot_approves_by_rule_leaves_the_rest_to_people_and_tells(self):
        async with asyncio.timeout(LIMIT):
            # The first call waits before the bot comes.
            run = await self.talk.send('call write {"path": "notes/a.txt", "content": "1"}\nstep\nsay one')
            await self.talk.event("tool.approval.required")
            await self.start("write:notes/*")
            self.assertEqual(await self.talk.ended(run), "completed")

            # A session that begins later, and a call that no rule covers.
            later = await Talk.begin(self.ann, self.talk.project)
            run = await later.send('call write {"path": "other/b.txt", "content": "2"}\nstep\nsay two')
            call = (await later.event("tool.approval.required"))["toolCallId"]
            self.assertEqual(len((await later.snapshot())["approvals"]), 1)
            await self.ann.call("tool.reject", later.project, sessionId=later.session, toolCallId=call)
            self.assertEqual(await later.ended(run), "completed")
            run = await later.send('call write {"path": "notes/c.txt", "content": "3"}\nstep\nsay three')
            self.assertEqual(await later.ended(run), "completed")

            told = await self.answer(later, "@bot summary")
            self.assertEqual(told, "Since I came:\n1 x call approved\n2 x run completed")
            self.assertIn("summary", await self.answer(later, "@bot who are you?"))

    async def test_a_bot_comes_back_after_its_connection_was_cut(self):
        async with asyncio.timeout(LIMIT), Wire(self.iris.port) as wire:
            bot = await self.start("write:*", url=wire.url)
            for number in range(3):
                content = f'call write {{"path": "{number}.txt", "content": ""}}\nstep\nsay done'
                run = await self.talk.send(content)
                self.assertEqual(await self.talk.ended(run), "completed")
                wire.cut()
            self.assertGreater(bot.client.connections, 1)


class RulesTest(unittest.TestCase):
    def test_no_rule_covers_what_leaves_its_directory_or_has_no_path(self):
        bot = Bot(None, "prj_1", ["write:notes/*"])
        is_allowed = lambda tool, **input: bot.is_allowed({"toolName": tool, "input": input})
        self.assertTrue(is_allowed("write", path="notes/a.txt"))
        for path in ("notes/../b.txt", "other/notes/a.txt", "notes", None, 1):
            self.assertFalse(is_allowed("write", path=path), path)
        self.assertFalse(is_allowed("bash", path="notes/a.txt"))
        self.assertFalse(is_allowed("write"))


class WaitTest(unittest.TestCase):
    def test_a_server_that_asks_for_time_gets_it(self):
        self.assertEqual(wait_after("retryAfterMs=1500", 1), 1.5)
        self.assertLessEqual(wait_after("slow reader", 1), BACKOFF_FIRST)
        self.assertGreaterEqual(wait_after("retryAfterMs=20", 1), BACKOFF_FIRST / 2)


class PartsTest(unittest.TestCase):
    def delta(self, gen, offset, delta):
        payload = {"partId": "p", "messageId": "m", "gen": gen, "offset": offset, "delta": delta}
        return self.parts.change("message.text.delta", payload)

    def snapshot(self, gen, text):
        payload = {"partId": "p", "messageId": "m", "kind": "text", "gen": gen, "text": text}
        return self.parts.change("message.part.snapshot", payload)

    def test_the_arguments_of_a_call_are_no_text(self):
        self.parts = Parts()
        payload = {"partId": "p", "messageId": "m", "toolName": "write", "gen": 1, "offset": 0}
        self.assertEqual(self.parts.change("message.tool.input.delta", {**payload, "delta": "{"}), [])
        payload = {**payload, "kind": "toolInput", "length": 1, "text": "{"}
        self.assertEqual(self.parts.change("message.part.snapshot", payload), [])

    def test_pieces_overlap_are_missing_and_start_over(self):
        self.parts = Parts()
        self.assertEqual([part.text for part in self.delta(1, 0, "grü")], ["grü"])
        # Offsets count bytes.
        [part] = self.delta(1, 2, "üße")
        self.assertEqual((part.text, part.kept), ("grüße", 3))
        self.assertEqual(self.delta(1, 0, "grü"), [])
        [cut] = self.delta(1, 20, "later")
        self.assertTrue(cut.is_cut)
        self.assertEqual(self.delta(1, 25, "later"), [])
        self.assertEqual(self.snapshot(1, "grü"), [])
        [part] = self.snapshot(1, "grüße an alle")
        self.assertEqual((part.text, part.kept), ("grüße an alle", 5))
        [part] = self.delta(2, 0, "neu")
        self.assertEqual((part.text, part.kept), ("neu", 0))
        self.assertEqual(self.delta(1, 3, "alt"), [])


if __name__ == "__main__":
    unittest.main()
