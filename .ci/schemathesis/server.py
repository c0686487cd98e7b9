"""A server of one's own with the scripted model, and the place on the web that its tools, its MCP servers and its
logins ask."""

import http.server
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.parse

from login import PROVIDER, challenge_of

SETUP_TOKEN = "a token for the first user"
# What limits callers would be all that is tested otherwise.
UNLIMITED = [
    "REQUESTS_PER_SECOND", "PUBLIC_REQUESTS_PER_MINUTE", "KEY_REQUESTS_PER_SECOND", "RUNS_PER_MINUTE",
    "UPLOADS_PER_MINUTE", "LOGIN_FAILURES_PER_10_MINUTES",
]
# What the provider of logins knows the server as.
CLIENT = {"client_id": "iris", "client_secret": "a secret of the server"}
NOBODY = "65534"


def is_success(documented, status):
    """Whether a request did what it is for: a browser that is sent on is, where the document has it so."""
    return 200 <= status < 300 or 300 <= status < 400 and str(status) in documented


def repository(directory):
    """A bare repository with one commit, to clone and to push to."""
    here, bare = os.path.join(directory, "work"), os.path.join(directory, "bare.git")
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet", here], check=True)
    with open(os.path.join(here, "a.md"), "w") as file:
        file.write("one\n")
    subprocess.run([*git, "-C", here, "add", "."], check=True)
    subprocess.run([*git, "-C", here, "commit", "--quiet", "-m", "begin"], check=True)
    subprocess.run([*git, "clone", "--quiet", "--bare", here, bare], check=True)
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", NOBODY, bare], check=True)
    return bare


class Iris:
    """A running `iris serve` on a fresh data directory."""

    def __init__(self, binary, web):
        self.binary, self.web = binary, web
        self.dir = tempfile.mkdtemp(prefix="iris-schemathesis-")
        self.log = os.path.join(self.dir, "log")
        # Commands of another user find their way.
        os.chmod(self.dir, 0o711)
        os.mkdir(os.path.join(self.dir, "data"), 0o711)
        self.repository = repository(os.path.join(self.dir, "repositories"))
        self.start()

    def start(self):
        data = os.path.join(self.dir, "data")
        command = [self.binary, "serve", "--bind", "127.0.0.1:0", "--data-dir", data]
        environment = {f"IRIS_{name}": "0" for name in UNLIMITED} | {
            "IRIS_SETUP_TOKEN": SETUP_TOKEN,
            "IRIS_REGISTRATION": "open",
            "IRIS_PROVIDERS__DEMO__KIND": "scripted",
            # They are there to have keys, and to say that there is nothing where one is asked.
            "IRIS_PROVIDERS__OTHER__KIND": "openai-compatible",
            "IRIS_PROVIDERS__OTHER__BASE_URL": f"{self.web.url}/v1",
            "IRIS_PROVIDERS__THIRD__KIND": "openai-compatible",
            "IRIS_PROVIDERS__THIRD__BASE_URL": f"{self.web.url}/v1",
            "IRIS_DEFAULT_MODEL": "demo/script",
            f"IRIS_OAUTH__{PROVIDER.upper()}__KIND": "github",
            f"IRIS_OAUTH__{PROVIDER.upper()}__ISSUER": self.web.url,
            f"IRIS_OAUTH__{PROVIDER.upper()}__CLIENT_ID": CLIENT["client_id"],
            f"IRIS_OAUTH__{PROVIDER.upper()}__CLIENT_SECRET": CLIENT["client_secret"],
            "IRIS_PROJECT_ROOTS": os.path.dirname(self.repository),
            "IRIS_EGRESS_ALLOW": self.web.url.removeprefix("http://"),
        }
        if os.getuid() == 0:
            # Commands of root run as somebody else.
            environment |= {"IRIS_SANDBOX_UID": NOBODY, "IRIS_SANDBOX_GID": NOBODY}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.url = self.process.stdout.readline().strip().removeprefix("listening on ")
        if not self.url:
            raise RuntimeError(f"the server did not start:\n{self.lines()}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def lines(self):
        """What it logged, the end of it."""
        with open(self.log) as log:
            return "".join(log.readlines()[-40:])

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir)


class Web:
    """A tool, an MCP server that wants an authorization, who gives it, and a provider of logins like GitHub."""

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Whoever comes to log in is somebody new. The codes that they were sent back with, and for which challenge.
    people, codes = itertools.count(1), {}

    def do_GET(self):
        if self.path.startswith("/hangs.git/"):
            # Until whoever asks is gone.
            self.rfile.read(1)
            return
        if self.path.startswith("/login/oauth/authorize?"):
            return self.agree()
        if self.path in ["/api/v3/user", "/api/v3/user/emails"]:
            return self.tell_of_person()
        origin = "http://" + self.headers["host"]
        pages = {
            "/tool": {"fine": True},
            "/.well-known/oauth-protected-resource/mcp": {
                "resource": f"{origin}/mcp", "authorization_servers": [origin],
            },
            "/.well-known/oauth-authorization-server": {
                "issuer": origin,
                "authorization_endpoint": f"{origin}/agree",
                "token_endpoint": f"{origin}/token",
                "registration_endpoint": f"{origin}/register",
                "code_challenge_methods_supported": ["S256"],
            },
        }
        path = urllib.parse.urlsplit(self.path).path
        self.answer(200 if path in pages else 404, pages.get(path, {}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/login/oauth/access_token":
            self.exchange(dict(urllib.parse.parse_qsl(body)))
        elif self.path == "/register":
            self.answer(201, {"client_id": "iris"})
        elif self.path == "/token":
            self.answer(200, {"access_token": "let-me-in", "token_type": "Bearer", "expires_in": 3600})
        elif self.path == "/mcp" and "authorization" not in self.headers:
            where = f"http://{self.headers['host']}/.well-known/oauth-protected-resource/mcp"
            self.answer(401, {}, {"www-authenticate": f'Bearer resource_metadata="{where}"'})
        else:
            self.answer(404, {})

    def agree(self):
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        code = str(next(self.people))
        self.codes[code] = asked["code_challenge"]
        back = urllib.parse.urlencode({"code": code, "state": asked["state"]})
        self.answer(302, {}, {"location": f"{asked['redirect_uri']}?{back}"})

    def exchange(self, form):
        is_ours = {name: form.get(name) for name in CLIENT} == CLIENT
        challenge = self.codes.pop(form.get("code"), None)
        if is_ours and challenge == challenge_of(form.get("code_verifier", "")):
            self.answer(200, {"access_token": f"of-{form['code']}", "token_type": "bearer"})
        else:
            self.answer(400, {"error": "bad_verification_code"})

    def tell_of_person(self):
        number = int(self.headers["authorization"].rpartition("-")[2])
        email = {"email": f"octo-{number}@example.com", "primary": True, "verified": True}
        user = {"id": number, "login": f"octo-{number}", "name": None}
        self.answer(200, [email] if self.path.endswith("/emails") else user)

    def answer(self, status, body, headers=None):
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass
