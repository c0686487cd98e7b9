"""What the documents tell a reader to type or send, tried: `run.py path/to/target/debug [DOCUMENT..]`.

Every block of `sh` or `json` says in a comment on the line before it what becomes of it here:

    <!-- run -->                      it is run, after those before it in the same document
    <!-- run: serve -->               the same; its last command is a server, which stays until the end of the document
    <!-- run: for 3 s -->             it has no end and is stopped after that time
    <!-- run in a terminal: .. -->    the same in a terminal
    <!-- run, says: some text -->     it is run, and prints that
    <!-- run at a server .. -->       each of these at a server that is there, for its administrator: `STAGE` below
    <!-- not run: reason -->          it is not
    <!-- settings -->                 lines of the environment, or of a file of it, which the server reads
    <!-- frames -->                   each line is a frame of the wire
    <!-- request: tool.create -->     it is the payload of that operation
    <!-- part of a request -->        it is JSON

Blocks of `toml` are files of settings; there are none of `rust`, which stands in `examples/`, where it is compiled.
Wherever they stand, command lines of `iris` have to be ones that the command knows, routes ones that it has, and
what `cargo`, `just` and `.ci/run` are told to do something with has to be there.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
DOCUMENTS += sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("examples/*/README.md"))
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = re.compile(
    r"run(?P<stage> at a server)?(?P<terminal> in a terminal)?"
    r"(?:: (?P<serve>serve)|: for (?P<seconds>\d+) s|, says: (?P<says>.+))?$"
)
# A program that a document says how to build is there already. The port is replaced later.
STANDS_FOR = [
    ("cargo run --release --example chat --", "chat --url http://127.0.0.1:4747"),
    ("cargo run --release --", "iris"),
]
PLACEHOLDER = re.compile(r"\b([a-z]{3})_\.\.")
LIMIT = 120
READY = """
for _ in {{1..200}}; do curl -s http://127.0.0.1:{port}/health/ready >/dev/null && break; sleep 0.1; done
"""
# What a document takes for granted that says what to do at a server: somebody administers it, and has a project.
STAGE = """
iris serve --data-dir {directory}/data --bind 127.0.0.1:{port} >/dev/null 2>{directory}/log &
{ready}
url=http://127.0.0.1:{port} json='content-type: application/json' IRIS_PASSWORD='choose a long one'
token=$(curl -s -X POST $url/v1/auth/setup -H "$json" -d '{{"token":"a token of your own",
  "email":"you@example.com","username":"you","password":"choose a long one"}}' | jq -r .data.accessToken)
auth="authorization: Bearer $token" IRIS_TOKEN=$token
project=$(curl -s -X POST $url/v1/projects -H "$auth" -H "$json" -d '{{"name":"notes"}}' | jq -r .data.id)
session=$(curl -s -X POST $url/v1/projects/$project/sessions -H "$auth" -H "$json" -d '{{}}' | jq -r .data.id)
"""
STAGE_SETTINGS = {
    "IRIS_PROVIDERS__DEMO__KIND": "scripted",
    "IRIS_DEFAULT_MODEL": "demo/script",
    "IRIS_SETUP_TOKEN": "a token of your own",
}


class Wrong(Exception):
    """A document is wrong."""


def blocks(document):
    text = (ROOT / document).read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield f"{document}:{line}", found["kind"], found["mark"] or "", found["text"]


# What is run.


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def script(document, directory, port):
    """All blocks of a document that are run, one after the other in one shell."""
    # Who sends something sees what it is answered; here an error is one.
    lines = ["set -aeuo pipefail", 'curl() { command curl --fail-with-body "$@"; }', f"cd {directory}"]
    says, has_stage = [], False
    ready = READY.format(port=port).strip()
    for place, kind, mark, text in blocks(document):
        if kind != "sh" or mark == "settings":
            continue
        how = MARK.match(mark)
        if not how:
            if not re.match(r"not run: .{8}", mark):
                raise Wrong(f"{place}: is it run? `{mark}` does not say")
            continue
        for told, command in STANDS_FOR:
            text = text.replace(told, command)
        for of_machine in ("/tmp/", "/etc/"):
            text = text.replace(of_machine, directory + of_machine)
        text = text.replace(":4747", f":{port}").rstrip()
        lines.append(f"echo; echo '== {place}'")
        if how["stage"]:
            if not has_stage:
                lines.append(STAGE.format(directory=directory, port=port, ready=ready))
            has_stage = True
            text = text.replace("prj_..", "$project").replace("ses_..", "$session")
        if how["serve"]:
            before, _, last = text.rpartition("\n")
            lines += [before, f"{last} --bind 127.0.0.1:{port} >/dev/null 2>{directory}/log &"]
            lines.append(ready)
        elif how["seconds"]:
            seconds = how["seconds"]
            # Each line of its own, since no line of a terminal comes to its end.
            for one in text.splitlines() if how["terminal"] else [text]:
                command = f"bash -euo pipefail -c {shlex.quote(one)}"
                if how["terminal"]:
                    typed = f"script -qec {shlex.quote(command)} {directory}/terminal"
                    command = f"{typed} < <(sleep {seconds}) >/dev/null"
                # Ended by us, and by nothing else.
                lines.append(f"timeout {seconds} {command} || [ $? = 124 ]")
        else:
            lines.append(text)
        says += [(place, how["says"])] if how["says"] else []
    return "\n".join(lines) + "\n", says


def run(document, programs):
    with tempfile.TemporaryDirectory(prefix="iris-docs-") as directory:
        port = free_port()
        text, says = script(document, directory, port)
        if "\necho; " not in text:
            return
        for of_machine in ("bin", "tmp", "etc/prometheus"):
            Path(directory, of_machine).mkdir(parents=True)
        bin = Path(directory, "bin")
        for name, program in {"iris": "iris", "chat": "examples/chat"}.items():
            (bin / name).symlink_to(programs / program)
        environment = {"PATH": f"{bin}:{os.environ['PATH']}", "HOME": directory}
        # What `top` and `logs` take for the default address.
        environment["IRIS_URL"] = f"http://127.0.0.1:{port}"
        if "run at a server" in (ROOT / document).read_text():
            environment.update(STAGE_SETTINGS)
        output = Path(directory, "output")
        with output.open("w") as to:
            child = subprocess.Popen(
                ["bash", "-c", text], env=environment, stdin=subprocess.DEVNULL, stdout=to,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{document}: it takes longer than {LIMIT} s")
        finally:
            # What it left in the background goes, too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said = output.read_text()
        print(said, flush=True)
        if child.returncode:
            raise Wrong(f"{document}: a command ended with {child.returncode}, see above")
        for place, expected in says:
            of_block = said.split(f"== {place}\n")[-1].split("\n== ")[0]
            if expected not in of_block:
                raise Wrong(f"{place}: it does not say `{expected}`")


# What is read.


def written(document):
    """Each line of a block of `sh`, and each span of code."""
    for place, kind, _, text in blocks(document):
        if kind == "sh":
            yield from ((place, line) for line in text.replace("\\\n", " ").splitlines())
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        yield from ((f"{document}:{number}", span) for span in re.findall(r"`([^`]+)`", line))


def command_lines(document):
    """Whatever a document writes as a command line of `iris`."""
    for place, line in written(document):
        for told, command in STANDS_FOR:
            line = line.replace(told, command)
        # Variables before it, and what follows it, belong to the shell.
        found = re.match(r"(?:\w+=(?:'[^']*'|\"[^\"]*\"|\S*) )*iris(?=\s|$)([^|;&#]*)", line)
        if found:
            yield place, found[1].split(" > ")[0]


# What stands for a value in a command line.
VALUES = {
    "COMMAND": "serve",
    "SHELL": "bash",
    "PROJECT": "prj_" + "0" * 32,
    "$project": "prj_" + "0" * 32,
    "$session": "ses_" + "0" * 32,
    "ID:HASH": "1:" + "0" * 64,
}


def check_command_line(place, line, iris):
    """`--help` at its end has everything before it read, and nothing done."""
    words = shlex.split(re.sub(r"[\[\]]", " ", PLACEHOLDER.sub(lambda m: f"{m[1]}_{'0' * 32}", line)))
    words = [VALUES.get(word.rstrip(".…"), word) for word in words if word.strip(".…")]
    # A document may speak of what no reader types.
    if any(word.startswith(("<", "__")) for word in words):
        return
    read = subprocess.run([iris, *words, "--help"], capture_output=True, text=True, env={})
    if read.returncode:
        raise Wrong(f"{place}: `iris{line}`: {read.stderr.strip()}")


class Workspace:
    """What there is to build, to test and to call."""

    def __init__(self):
        command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
        packages = json.loads(subprocess.check_output(command, cwd=ROOT))["packages"]
        targets = [(kind, target["name"]) for p in packages for target in p["targets"] for kind in target["kind"]]
        of_kind = lambda kind: {name for found, name in targets if found == kind}
        self.names = {
            "p": {package["name"] for package in packages},
            "package": {package["name"] for package in packages},
            "features": {feature for package in packages for feature in package["features"]},
            **{kind: of_kind(kind) for kind in ("bench", "bin", "example", "test")},
        }
        self.steps = set(re.findall(r"^step_(\w+)\(\)", (ROOT / ".ci/run").read_text(), re.M))
        self.recipes = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "justfile").read_text(), re.M))

    def check(self, place, line):
        for call in re.findall(r"cargo (?:bench|build|run|test)\b([^|;&#]*)", line):
            # What follows is for the program.
            for option, name in re.findall(r" --?([a-z]+) (\w[\w-]*)", call.split(" -- ")[0]):
                if name not in self.names.get(option, {name}):
                    raise Wrong(f"{place}: `{line}`: there is no {option} `{name}`")
        for step in re.findall(r"(?:^|\s)\.ci/run ([a-z]\w*)", line):
            if step not in self.steps:
                raise Wrong(f"{place}: `{line}`: there is no step `{step}`")
        for recipe in re.findall(r"^just ([a-z][\w-]*)$", line):
            if recipe not in self.recipes:
                raise Wrong(f"{place}: `{line}`: there is no recipe `{recipe}`")


METHODS = "GET|POST|PUT|PATCH|DELETE"


def check_routes(document, routes):
    """The routes that `curl` is sent to, and those that are named like `GET /v1/me`."""
    for place, line in written(document):
        for call in re.findall(r"curl [^|]*", line):
            url = re.search(r"(?:\$url|https?://[\w.:-]+)(/[^\s\"'?]*)", call)
            method = re.search(rf"-X ({METHODS})\b", call)
            body = re.search(r" (-d|--data\S*) ", call)
            if url:
                check_route(place, method[1] if method else "POST" if body else "GET", url[1], routes)
        if found := re.match(rf"({METHODS}) (/[^\s?]*)", line):
            check_route(place, *found.groups(), routes)


# Routes that are no operations (docs/protocol.md).
PLAIN = {("GET", path) for path in ("/v1/ws", "/health/live", "/health/ready", "/metrics")} | {("POST", "/v1/commands")}


def check_route(place, method, path, routes):
    if (method, path) in PLAIN:
        return
    like = re.sub(r"\$\w+|\{\w+\}|\b[a-z]{3}_\.\.", "{}", path)
    pattern = lambda route: re.sub(r"\\\{\w*\\\}", ".+", re.escape(route))
    if not any(method == known and re.fullmatch(pattern(route), like) for known, route in routes):
        raise Wrong(f"{place}: there is no route `{method} {path}`")


def check_json(place, mark, text, wire):
    text = PLACEHOLDER.sub(lambda m: f"{m[1]}_{'0' * 32}", text)
    definitions = {"$defs": wire["$defs"]}
    if mark == "frames":
        for frame in map(json.loads, text.splitlines()):
            name = frame["type"]
            if name == "response":
                schema = wire["frames"]["response" if frame["success"] else "error"]
            elif "id" in frame:
                schema = wire["frames"]["request"]
                check(place, frame["payload"], {**wire["operations"][name]["request"], **definitions})
            else:
                schema = wire["frames"].get(name) or wire["frames"]["event"]
            check(place, frame, {**schema, **definitions})
    elif found := re.match(r"request: (\S+)$", mark):
        check(place, json.loads(text), {**wire["operations"][found[1]]["request"], **definitions})
    elif mark == "part of a request":
        json.loads(text)
    else:
        raise Wrong(f"{place}: what is it? `{mark}` does not say")


def check_settings(place, text, iris):
    """A file of settings is one that `iris doctor` can read, whatever it says of this machine."""
    with tempfile.TemporaryDirectory(prefix="iris-docs-") as directory:
        file = Path(directory, "iris.toml")
        file.write_text(text)
        command = [iris, "doctor", "--config", file, "--data-dir", directory, "--json"]
        read = subprocess.run(command, capture_output=True, text=True, env={})
        if not read.stdout:
            raise Wrong(f"{place}: {read.stderr.strip()}")


def check_environment(place, text, iris):
    """The same of lines of the environment; the files that they name are there."""
    with tempfile.TemporaryDirectory(prefix="iris-docs-") as directory:
        lines = subprocess.check_output(["bash", "-ac", f"{text}\nenv -0"], text=True, env={}).split("\0")
        settings = dict(line.split("=", 1) for line in lines if line.startswith("IRIS_"))
        for name, value in settings.items():
            if value.startswith("/etc/"):
                file = Path(directory, Path(value).name)
                file.write_text("{}" if file.suffix == ".json" else "a secret that is long enough for all of them")
                settings[name] = str(file)
        command = [iris, "doctor", "--data-dir", directory, "--json"]
        read = subprocess.run(command, capture_output=True, text=True, env=settings)
        found = [json.loads(line) for line in read.stdout.splitlines()]
        # A name that means nothing is a warning there.
        if not settings or not any(one["what"] == "configuration" and one["state"] == "ok" for one in found):
            raise Wrong(f"{place}: {read.stderr.strip() or read.stdout}")


def check(place, value, schema):
    try:
        jsonschema.validate(value, schema)
    except jsonschema.ValidationError as error:
        raise Wrong(f"{place}: {error.json_path}: {error.message}") from None


def main():
    programs, documents = Path(sys.argv[1]).resolve(), sys.argv[2:] or DOCUMENTS
    iris = programs / "iris"
    printed = lambda what: json.loads(subprocess.check_output([iris, what]))
    wire, paths = printed("schema"), printed("openapi")["paths"]
    routes = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    workspace, failures = Workspace(), 0
    for document in documents:
        try:
            for place, kind, mark, text in blocks(document):
                if kind == "json":
                    check_json(place, mark, text, wire)
                elif mark == "settings":
                    check_environment(place, text, iris)
                elif kind == "toml":
                    check_settings(place, text, iris)
                elif kind == "rust":
                    raise Wrong(f"{place}: nothing compiles it; name a file of `examples/`")
            for place, line in command_lines(document):
                check_command_line(place, line, iris)
            check_routes(document, routes)
            for place, line in written(document):
                workspace.check(place, line)
            run(document, programs)
        except (Wrong, ValueError) as error:
            print(f"FAILED {document}: {error}", flush=True)
            failures += 1
    sys.exit(f"{failures} documents are wrong" if failures else 0)


if __name__ == "__main__":
    main()
