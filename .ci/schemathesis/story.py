"""One request of every route that does what it is for, and the data that those leave for the next ones."""

import base64
import time
import urllib.parse

import requests
from schemathesis import openapi
from schemathesis.core import NOT_SET
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance, response_headers_conformance, response_schema_conformance,
    status_code_conformance,
)

from login import PROVIDER, Browser, Program, code_from, query_of
from server import SETUP_TOKEN, is_success

CHECKS = [
    content_type_conformance, response_headers_conformance, response_schema_conformance,
    status_code_conformance,
]
PASSWORD = "a long password"
# One dot, which a tool shows as an attachment.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIMIT = 30


class Story:
    """`told` has what was sent to each operation the last time, `violations` what was not as documented."""

    def __init__(self, iris):
        self.iris, self.token, self.told, self.violations = iris, None, {}, {}
        self.connect()

    def connect(self):
        self.schema = openapi.from_url(f"{self.iris.url}/v1/openapi.json")

    def call(self, operation_id, /, body=NOT_SET, query=None, token=None, keep=True, browser=None,
             media_type="application/json", **path):
        """Sends what has to succeed, and checks the answer against the document."""
        token = token or self.token
        operation = self.schema.find_operation_by_id(operation_id)
        is_bytes = isinstance(body, bytes)
        case = operation.Case(
            path_parameters=path, query=query, body=body,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            media_type=None if body is NOT_SET else
            "application/octet-stream" if is_bytes else media_type,
        )
        response = case.call(session=browser, timeout=LIMIT)
        if not is_success(operation.definition.raw["responses"], response.status_code):
            raise RuntimeError(f"{operation_id}: {response.status_code} {response.text}\n{self.iris.lines()}")
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as failures:
            self.violations.setdefault(operation_id, failures)
        if keep:
            sent = None if body is NOT_SET or is_bytes else body
            self.told[operation_id] = {"path": path, "query": query or {}, "body": sent}
        try:
            answer = response.json()
        except ValueError:
            return response
        return answer.get("data", answer) if isinstance(answer, dict) else response

    def until(self, what, ask):
        """What `ask` finds, as soon as it finds something."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if found := ask():
                return found
            time.sleep(0.02)
        raise RuntimeError(f"{what} did not come\n{self.iris.lines()}")

    def account(self, name):
        return {"email": f"{name}@example.com", "username": name, "password": PASSWORD}

    def register(self, name):
        return self.call("auth.register", self.account(name))

    # The parts, in their order.

    def people(self):
        call = self.call
        ann = call("auth.setup", {"token": SETUP_TOKEN, **self.account("ann")})
        self.token, self.ann = ann["accessToken"], ann["user"]["id"]
        ben = self.register("ben")
        self.ben, self.ben_token = ben["user"]["id"], ben["accessToken"]
        ann = call("auth.login", {"email": "ann@example.com", "password": PASSWORD})
        self.token = call("auth.rotate", {"refreshToken": ann["refreshToken"]})["accessToken"]
        call("auth.ticket")
        call("user.get")
        call("user.update", {"preferences": {"theme": "dark"}})
        call("user.export")
        call("auth.oauth.list")

        other = call("auth.login", {"email": "ann@example.com", "password": PASSWORD})
        login = call("auth.session.list")[0]["id"]
        call("auth.session.revoke", authSessionId=login)
        assert requests.get(
            f"{self.iris.url}/v1/me", headers={"Authorization": f"Bearer {other['accessToken']}"},
            timeout=LIMIT,
        ).status_code == 401
        eve = self.register("eve")["accessToken"]
        change = {"currentPassword": PASSWORD, "newPassword": "another long password"}
        eve = call("auth.password.change", change, token=eve)["accessToken"]
        call("auth.logout", {}, token=eve)
        call("auth.password.forgot", {"email": "eve@example.com"})

        key = call("key.create", {"name": "of a program"})["id"]
        call("key.list")
        call("key.revoke", keyId=key)
        for kind in ["", "admin."]:
            secret = {"providerId": "other", "apiKey": "sk-0123456789"}
            made = call(f"{kind}credential.create", secret)["id"]
            call(f"{kind}credential.list")
            call(f"{kind}credential.delete", credentialId=made)

    def elsewhere(self):
        """Logins at another provider, answered in the browser and for a program, and links with it."""
        call, place = self.call, {"provider": PROVIDER}
        for program in [None, Program()]:
            browser, asks = Browser(), program.asks if program else {}
            begun = call("auth.oauth.start", query=asks, browser=browser, **place)
            back = query_of(browser.sent_to(begun.headers["location"][0]))
            # Not with the token of somebody who is logged in: it is a browser.
            ended = call("auth.oauth.callback", query=back, browser=browser, **place)
        call("auth.oauth.redeem", program.shows(ended.headers["location"][0]))
        for _ in range(2):
            program = Program()
            link = call("identity.link", {**place, **program.asks, "currentPassword": PASSWORD})
            made = call("identity.create", code_from(link["url"], program))["id"]
        call("identity.list")
        call("identity.delete", identityId=made)
        # The other one is for the run to come.
        self.told["identity.delete"]["path"] = {"identityId": call("identity.list")[0]["id"]}

    def server(self):
        call, eve = self.call, self.call("admin.user.list", query={"email": "eve@example.com"})[0]["id"]
        reset = call("admin.user.password.reset", userId=eve)["token"]
        call("auth.password.reset", {"token": reset, "newPassword": PASSWORD})
        call("admin.user.get", userId=eve)
        call("admin.user.update", {"canExecuteCode": False}, userId=eve)
        call("admin.user.export", userId=eve)
        call("admin.user.logout", userId=eve)
        call("admin.budget.set", {"budgets": {"month": {"tokens": 1_000_000}}}, userId=eve)
        call("admin.budget.get", userId=eve)
        gone = call("admin.user.create", {**self.account("gus"), "isAdmin": False})["id"]
        call("admin.user.delete", userId=gone)
        self.register("fay")
        fay = call("auth.login", {"email": "fay@example.com", "password": PASSWORD})["accessToken"]
        call("user.delete", {"currentPassword": PASSWORD}, token=fay)
        for _ in range(2):
            invited = call("admin.invitation.create", {"email": "hal@example.com"})
        call("admin.invitation.list")
        call("admin.invitation.revoke", invitationId=invited["invitation"]["id"])

        call("admin.settings.get")
        call("admin.settings.update", {"projectCreation": None})
        call("admin.log.get")
        call("admin.log.set", {"filter": "info"})
        call("admin.supervision.list", query={"limit": 5})
        call("admin.audit.list", query={"limit": 5})
        call("admin.audit.export")
        call("admin.usage.get", query={"from": 0})
        model = {"providerId": "other", "modelId": "some"}
        call("admin.model.set", {**model, "facts": {"contextTokens": 8192}})
        call("model.list", query={"limit": 5})
        call("admin.model.reset", query=model)
        rule = {"permission": "webfetch", "pattern": "*.example.com", "action": "ask"}
        for _ in range(2):
            made = call("admin.permission.create", rule)["rule"]["id"]
        call("admin.permission.list")
        call("admin.permission.update", {"action": "deny"}, permissionId=made)
        call("admin.permission.delete", permissionId=made)

    def project(self):
        call = self.call
        self.id = call("project.create", {"name": "of the run"})["id"]
        project = {"projectId": self.id}
        call("project.list", query={"limit": 5, "includeArchived": "true"})
        call("project.get", **project)
        call("project.update", {"description": "what is sent to it is made up"}, **project)
        call("project.settings.get", **project)
        call("project.settings.update", {"settings": {"resume": "manual"}}, **project)
        call("project.member.list", **project)
        call("project.member.add", {"userId": self.ben, "role": "admin"}, **project)
        call("project.member.update", {"role": "member"}, userId=self.ben, **project)
        call("project.member.remove", userId=self.ben, **project)
        for _ in range(2):
            invited = call("invitation.create", {"role": "admin"}, **project)
        call("invitation.list", **project)
        call("invitation.revoke", invitationId=invited["invitation"]["id"], **project)
        token = call("invitation.create", {"role": "admin"}, **project)["token"]
        call("invitation.accept", {"token": token}, token=self.ben_token)
        call("presence.list", **project)
        call("usage.get", query={"from": 0}, **project)
        made = call("project.credential.create", {"providerId": "other", "apiKey": "sk-0123456789"},
                    **project)["id"]
        call("project.credential.list", **project)
        call("project.credential.delete", credentialId=made, **project)

    def rules_and_tools(self):
        call, project = self.call, {"projectId": self.id}
        agent = {"name": "helper", "description": "helps", "tools": ["read"]}
        call("agent.create", agent, **project)
        call("agent.list", **project)
        call("agent.get", name="helper", **project)
        call("agent.update", {"prompt": "Be brief."}, name="helper", **project)
        call("agent.delete", name="helper", **project)
        rule = {"permission": "write", "pattern": "*.md", "action": "ask"}
        for _ in range(2):
            made = call("permission.create", rule, **project)["rule"]["id"]
        call("permission.list", query={"limit": 5}, **project)
        call("permission.update", {"action": "ask"}, permissionId=made, **project)
        call("permission.delete", permissionId=made, **project)
        call("permission.explain", {"toolName": "read", "input": {"path": "a.md"}}, **project)
        for name in ["weather", "tides"]:
            tool = {
                "name": name, "description": "asks a page", "parameters": {"type": "object"},
                "http": {"method": "GET", "url": f"{self.iris.web.url}/tool",
                         "secretHeaders": {"x-key": "0123456789"}},
            }
            made = call("tool.create", tool, **project)["id"]
            if name == "weather":
                call("tool.test", {"input": {}}, toolId=made, **project)
                call("tool.update", {"description": "still asks"}, toolId=made, **project)
        call("tool.list", **project)
        call("tool.delete", toolId=made, **project)

    def mcp(self):
        call, project = self.call, {"projectId": self.id}
        for name in ["spare", "web"]:
            transport = {"type": "http", "url": f"{self.iris.web.url}/mcp"}
            call("mcp.create", {"name": name, "transport": transport}, **project)
        call("mcp.delete", name="spare", **project)
        call("mcp.list", **project)
        self.until("the challenge of the MCP server", lambda: "needsAuth" == call(
            "mcp.status", name="web", **project)["state"])
        url = call("mcp.authorize", name="web", **project)["url"]
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        call("mcp.authorize.finish", query={"state": asked["state"][0], "code": "yes"})
        call("mcp.update", {"enabled": False}, name="web", **project)

    def files(self):
        call, project = self.call, {"projectId": self.id}
        path = {"path": "a.md"}
        first = call("file.write", b"one\n", query=path, **project)["version"]
        edited = call("file.edit", {**path, "oldString": "one", "newString": "two"}, **project)
        call("file.list", query={"limit": 5}, **project)
        call("file.stat", query=path, **project)
        call("file.read", query=path, **project)
        call("file.versions", query=path, **project)
        call("file.diff", query={**path, "from": first, "to": edited["version"]}, **project)
        call("file.search", query={"query": "two", "kind": "content"}, **project)
        call("file.restore", {**path, "to": first}, **project)
        call("file.move", {"from": "a.md", "to": "b.md"}, **project)
        for name in ["a.md", "gone.md"]:
            call("file.write", b"one\n", query={"path": name}, **project)
        call("file.delete", query={"path": "gone.md"}, **project)
        # Later ones are further versions of it.
        form = {"directory": "forms", "file": ["one\n"]}
        sent = call("file.upload", form, media_type="multipart/form-data", **project)
        assert [file["path"] for file in sent] == ["forms/file"] and "file" in sent[0], sent
        call("file.lock", {"path": "b.md"}, **project)
        call("file.locks", **project)
        call("file.unlock", query={"path": "b.md"}, **project)
        snapshot = call("snapshot.create", **project)["id"]
        call("snapshot.list", query={"limit": 5}, **project)
        call("snapshot.diff", snapshotId=snapshot, **project)
        call("snapshot.restore", snapshotId=snapshot, **project)

    def cloned(self, url, state):
        """A project that is cloned from there, and what became of that."""
        made = self.call("project.create", {"name": "cloned", "type": "git", "git": {"url": url}}, keep=False)
        return {"projectId": made["id"]}, self.until(f"a clone that is {state}", lambda: state == self.call(
            "project.get", keep=False, projectId=made["id"])["git"]["state"])

    def repositories(self):
        call, web = self.call, self.iris.web.url
        slow, _ = self.cloned(f"{web}/hangs.git", "cloning")
        call("git.cancel", **slow)
        gone, _ = self.cloned(f"{web}/gone.git", "failed")
        call("git.credentials.set", {"username": "ann", "token": "let-me-in"}, **gone)
        call("git.clone", **gone)
        here, _ = self.cloned(self.iris.repository, "ready")
        call("git.branches", **here)
        call("git.log", query={"limit": 1}, **here)
        call("file.write", b"two\n", query={"path": "a.md"}, keep=False, **here)
        call("git.status", **here)
        call("git.diff", query={"path": "a.md"}, **here)
        call("git.commit", {"message": "say two"}, **here)
        for name in ["push", "fetch", "pull"]:
            call(f"git.{name}", {}, **here)
        call("git.switch", {"branch": "main"}, **here)

    def say(self, session, text):
        sent = {"content": text}
        return self.call("session.message.send", sent, projectId=self.id, sessionId=session)

    def ended(self, session, run, status="completed"):
        self.until(f"the end of a run: {status}", lambda: status == self.call(
            "run.get", projectId=self.id, sessionId=session, runId=run)["status"])

    def new_session(self):
        return self.call("session.create", {"title": "talk"}, projectId=self.id)["id"]

    def waiting(self, script, kind):
        """A session whose run waits for a person, and what it waits for."""
        session = self.new_session()
        self.say(session, script)
        query = {"sessionId": session}
        return session, self.until(kind, lambda: self.call(
            f"{kind}.list", query=query, projectId=self.id))[0]

    def talk(self):
        call, project = self.call, {"projectId": self.id}
        self.session = self.new_session()
        here = {**project, "sessionId": self.session}
        call("file.write", PICTURE, {"path": "dot.png"}, keep=False, **project)
        sent = self.say(self.session, 'call read {"path": "dot.png"}\nstep\nsay read')
        self.ended(self.session, sent["runId"])
        answer = call("session.message.list", query={"limit": 5}, **here)[-1]
        tool = next(part for part in answer["parts"] if part["type"] == "tool")
        call("tool.output", query={"limit": 10}, toolCallId=tool["toolCallId"], **here)
        call("session.message.get", messageId=answer["id"], **here)
        call("run.list", query={"limit": 5}, **here)
        call("run.diff", runId=sent["runId"], **here)
        call("session.list", query={"limit": 5}, **project)
        call("session.get", **here)
        call("session.update", {"title": "of the run"}, **here)
        call("session.budget.set", {"budget": {"steps": 1000}}, **here)
        call("todo.list", **here)
        call("session.read", {"messageId": answer["id"]}, **here)
        call("session.capture.start", {"minutes": 5}, **here)
        self.recorded(here)
        call("session.capture.stop", query={"discard": "false"}, **here)
        with_file = {"content": "say seen", "attachments": [{"name": "a.txt", "data": "YQo="}]}
        seen = call("session.message.send", with_file, **here)
        self.ended(self.session, seen["runId"])
        call("session.message.attachment", messageId=seen["messageId"], index="0", **here)
        call("session.search", query={"query": "read"}, **project)
        call("session.export", query={"format": "markdown"}, **here)
        call("session.fork", {}, **here)
        for name, extra in [("edit", {"content": "say edited"}), ("retry", None)]:
            body = NOT_SET if extra is None else extra
            again = call(f"session.message.{name}", body, messageId=sent["messageId"], **here)
            self.ended(self.session, again["runId"])
            sent = again if name == "edit" else sent
        run = call("session.compact", **here)
        self.until("the end of a summary", lambda: call(
            "run.get", runId=run["id"], **here)["status"] in ["completed", "failed"])

        other = self.new_session()
        there = {**project, "sessionId": other}
        sent = self.say(other, "say undone")
        self.ended(other, sent["runId"])
        call("session.revert", {"messageId": sent["messageId"]}, **there)
        call("session.unrevert", {}, **there)
        call("session.archive", **there)
        call("session.unarchive", **there)
        call("session.delete", **there)

    def recorded(self, here):
        """What a provider with a wire is asked."""
        call = self.call
        call("session.update", {"model": {"providerId": "third", "modelId": "m"}}, keep=False, **here)
        sent = self.say(here["sessionId"], "hello")
        self.until("the end of a run", lambda: call(
            "run.get", runId=sent["runId"], **here)["status"] in ["completed", "failed"])
        call("session.update", {"model": {"providerId": "demo", "modelId": "script"}}, keep=False, **here)
        record = self.until("a record", lambda: call(
            "session.capture.list", query={"limit": 5}, **here))[0]
        call("session.capture.read", captureId=record["id"], **here)

    def people_decide(self):
        call, project = self.call, {"projectId": self.id}
        write = 'call write {"path": "plan.md", "content": "a"}\nstep\nsay written'
        for verb in ["reject", "approve"]:
            session, approval = self.waiting(write, "approval")
            where = {**project, "sessionId": session, "toolCallId": approval["toolCallId"]}
            call("approval.get", **where)
            call(f"tool.{verb}", {}, **where)
        ask = 'call question {"questions": [{"text": "Which?"}]}\nstep\nsay heard'
        for verb, body in [("reject", {}), ("answer", {"answers": [["this"]]})]:
            session, question = self.waiting(ask, "question")
            where = {**project, "sessionId": session, "questionId": question["id"]}
            call(f"question.{verb}", body, **where)
        session, _ = self.waiting(write, "approval")
        here = {**project, "sessionId": session}
        queued = self.say(session, "say later")["messageId"]
        call("session.message.dequeue", messageId=queued, **here)
        call("session.message.cancel", **here)

    def crash(self):
        """A run that the server's death cut off goes on."""
        session = self.new_session()
        here = {"projectId": self.id, "sessionId": session}
        run = self.say(session, "delay 20\nchunks 5000 word")["runId"]
        self.ended(session, run, "running")
        self.iris.kill()
        self.iris.start()
        self.connect()
        self.ended(session, run, "interrupted")
        self.call("run.resume", runId=run, **here)
        self.call("session.message.cancel", **here)

    def backups(self):
        call = self.call
        spare = call("project.create", {"name": "spare"}, keep=False)["id"]
        project = {"projectId": spare}
        for _ in range(2):
            backup = call("project.backup", **project)["id"]
        call("project.backup.list", **project)
        call("project.backup.delete", backupId=backup, **project)
        backup = call("project.export", **project)["id"]
        archive = call("project.backup.read", backupId=backup, **project).content
        copy = call("project.import", archive, query={"id": "new"})["id"]
        backup = call("project.backup", **project)["id"]
        call("project.restore", {"backupId": backup}, **project)
        call("project.archive", **project)
        call("project.unarchive", **project)
        call("project.member.add", {"userId": self.ben, "role": "admin"}, keep=False, **project)
        call("project.transfer", {"userId": self.ben}, **project)
        call("project.leave", **project)
        call("project.delete", projectId=copy)
        call("admin.keys.rotate")
        call("admin.metrics")
        call("admin.backup.create")
        call("admin.backup.list")

    def actors(self):
        call = self.call
        call("admin.actor.list", query={"kind": "project"})
        path = f"node/directory/project/{self.id}"
        call("project.get", projectId=self.id)
        call("admin.actor.get", path=path)
        call("admin.actor.restart", path=path)
        self.until("the project", lambda: call("project.get", projectId=self.id))
        call("admin.actor.stop", path=path)

    def leave(self):
        """Leaves, for the run to come, what can be used once."""
        call, project = self.call, {"projectId": self.id}
        bens = call("project.create", {"name": "of ben"}, token=self.ben_token, keep=False)["id"]

        def left(operation_id, body=None, **path):
            self.told[operation_id] = {"path": path, "query": {}, "body": body}

        for kind, where in [("", {}), ("project.", project), ("admin.", {})]:
            secret = {"providerId": "third", "apiKey": "sk-0123456789"}
            made = call(f"{kind}credential.create", secret, keep=False, **where)["id"]
            left(f"{kind}credential.delete", credentialId=made, **where)
        left("key.revoke", keyId=call("key.create", {"name": "left"})["id"])
        call("auth.login", {"email": "ann@example.com", "password": PASSWORD})
        left("auth.session.revoke", authSessionId=call("auth.session.list")[0]["id"])
        user = call("admin.user.create", {**self.account("ida"), "isAdmin": False}, keep=False)["id"]
        left("admin.user.delete", userId=user)
        ben = {"email": "ben@example.com", "password": PASSWORD}
        # One that was used would end the login.
        left("auth.rotate", {"refreshToken": call("auth.login", ben, keep=False)["refreshToken"]})
        reset = call("admin.user.password.reset", userId=self.told["admin.user.get"]["path"]["userId"])
        left("auth.password.reset", {"token": reset["token"], "newPassword": PASSWORD})

        token = call("invitation.create", {"role": "admin"}, token=self.ben_token, keep=False,
                     projectId=bens)["token"]
        left("invitation.accept", {"token": token})
        for kind, where, body in [("", project, {"role": "admin"}), ("admin.", {}, {})]:
            made = call(f"{kind}invitation.create", body, **where)["invitation"]["id"]
            left(f"{kind}invitation.revoke", invitationId=made, **where)
        rule = {"permission": "write", "pattern": "*.txt", "action": "ask"}
        for kind, where in [("", project), ("admin.", {})]:
            for verb, body in [("update", {"action": "deny"}), ("delete", None)]:
                made = call(f"{kind}permission.create", rule, **where)["rule"]["id"]
                left(f"{kind}permission.{verb}", body, permissionId=made, **where)
        for verb, body in [("update", {"role": "viewer"}), ("remove", None)]:
            user = self.register(f"member-{verb}")["user"]["id"]
            member = {"userId": user, "role": "member"}
            call("project.member.add", member, **project)
            left(f"project.member.{verb}", body, userId=user, **project)
        user = self.register("member-add")["user"]["id"]
        self.told["project.member.add"]["body"] = {"userId": user, "role": "member"}

        tool = {**self.told["tool.create"]["body"], "name": "left"}
        left("tool.delete", toolId=call("tool.create", tool, keep=False, **project)["id"], **project)
        self.told["tool.create"]["body"]["name"] = "another"
        agent = {**self.told["agent.create"]["body"], "name": "left"}
        call("agent.create", agent, keep=False, **project)
        for verb in ["get", "update", "delete"]:
            self.told[f"agent.{verb}"]["path"]["name"] = "left"
        server = {"name": "left", "transport": {"type": "http", "url": f"{self.iris.web.url}/mcp"}}
        call("mcp.create", server, keep=False, **project)
        left("mcp.delete", name="left", **project)
        self.told["mcp.create"]["body"]["name"] = "another"
        for name in ["edit.md", "move.md", "gone.md", "lock.md"]:
            call("file.write", b"one\n", query={"path": name}, keep=False, **project)
        call("file.lock", {"path": "lock.md"}, keep=False, **project)
        self.told["file.unlock"]["query"] = {"path": "lock.md"}
        self.told["file.edit"]["body"]["path"] = "edit.md"
        self.told["file.move"]["body"].update({"from": "move.md", "to": "moved.md"})

        self.told["auth.register"]["body"] = self.account("jan")
        self.told["admin.user.create"]["body"] = self.account("kim")
        self.leave_waiting(left)
        for operation_id in ["backup", "backup.list", "export", "unarchive", "restore", "transfer"]:
            self.told[f"project.{operation_id}"]["path"] = project
        for operation_id in ["read", "delete"]:
            made = call("project.backup", **project)["id"]
            left(f"project.backup.{operation_id}", backupId=made, **project)
        left("project.leave", projectId=self.id)

    def leave_waiting(self, left):
        """Leaves runs that wait for a person, and what was cut off."""
        write = 'call write {"path": "plan.txt", "content": "a"}\nstep\nsay written'
        for verb in ["reject", "approve"]:
            session, approval = self.waiting(write, "approval")
            left(f"tool.{verb}", {}, projectId=self.id, sessionId=session,
                 toolCallId=approval["toolCallId"])
        ask = 'call question {"questions": [{"text": "Which?"}]}\nstep\nsay heard'
        for verb, body in [("reject", {}), ("answer", {"answers": [["this"]]})]:
            session, question = self.waiting(ask, "question")
            left(f"question.{verb}", body, projectId=self.id, sessionId=session,
                 questionId=question["id"])
        session, _ = self.waiting(write, "approval")
        queued = self.say(session, "say later")["messageId"]
        left("session.message.dequeue", projectId=self.id, sessionId=session, messageId=queued)
        for verb, body in [("edit", {"content": "say edited"}), ("retry", None), ("compact", None)]:
            session = self.new_session()
            sent = self.say(session, "say spoken")
            self.ended(session, sent["runId"])
            where = {"projectId": self.id, "sessionId": session}
            if verb == "compact":
                left("session.compact", **where)
            else:
                left(f"session.message.{verb}", body, messageId=sent["messageId"], **where)
        session = self.new_session()
        run = self.say(session, "delay 20\nchunks 5000 word")["runId"]
        self.ended(session, run, "running")
        self.iris.kill()
        self.iris.start()
        self.connect()
        self.ended(session, run, "interrupted")
        left("run.resume", projectId=self.id, sessionId=session, runId=run)
        self.told["session.message.send"] = {
            "path": {"projectId": self.id, "sessionId": self.new_session()}, "query": {},
            "body": {"content": "say hello"}}

    def documents(self):
        for name in ["health.live", "health.ready", "openapi", "asyncapi", "schema"]:
            self.call(name)
        command = {"id": "1", "type": "project.get", "projectId": self.id, "payload": {}}
        self.call("commands", command)
        # It has no end: what it begins with has to do.
        url = f"{self.iris.url}/v1/projects/{self.id}/events?rooms=project:{self.id}"
        headers = {"Authorization": f"Bearer {self.token}"}
        with requests.get(url, headers=headers, stream=True, timeout=LIMIT) as stream:
            assert stream.status_code == 200, stream.text
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert next(stream.iter_lines()).startswith(b"retry:")
        self.told["events"] = {"path": {"projectId": self.id}, "query": {}, "body": None}

    def tell(self):
        for part in [
            self.people, self.elsewhere, self.server, self.project, self.rules_and_tools, self.mcp, self.files,
            self.repositories, self.talk, self.people_decide, self.crash, self.backups, self.actors, self.documents,
            self.leave,
        ]:
            part()
