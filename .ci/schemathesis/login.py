"""Somebody who logs in at another provider: their browser, and the program that sends it there."""

import base64
import hashlib
import secrets
import urllib.parse

import requests

# As the server's configuration calls the provider.
PROVIDER = "elsewhere"
# Nobody listens there: the browser stops before.
PROGRAM = "http://127.0.0.1:9/callback"


def query_of(url):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def challenge_of(verifier):
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class Program:
    """It wants a code, which is worth something to whoever has the verifier."""

    def __init__(self):
        self.verifier = secrets.token_urlsafe(48)
        self.asks = {"redirect": PROGRAM, "codeChallenge": challenge_of(self.verifier)}

    def shows(self, url):
        """What it shows the server, once the browser was sent to `url`."""
        return {"code": query_of(url)["code"], "codeVerifier": self.verifier}


class Browser(requests.Session):
    def sent_to(self, url):
        """Where it is sent by what it opens."""
        response = self.get(url, allow_redirects=False, timeout=30)
        if not response.is_redirect:
            raise RuntimeError(f"{url}: {response.status_code} {response.text}")
        return response.headers["location"]

    def back_from(self, url):
        """The address of the server that a login which begins at `url` comes back to."""
        return self.sent_to(self.sent_to(url))


def start_of(server, asks):
    return f"{server}/v1/auth/oauth/{PROVIDER}/start?{urllib.parse.urlencode(asks)}"


def code_from(url, program):
    """What the program shows after a login that begins at `url`."""
    browser = Browser()
    return program.shows(browser.sent_to(browser.back_from(url)))
