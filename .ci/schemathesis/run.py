"""Holds the server to its OpenAPI document: `python run.py path/to/iris`.

First a story that has every route do what it is for, then `schemathesis run` with the data that it left.
"""

import json
import os
import subprocess
import sys

from server import Iris, Web
from story import PASSWORD, Story

HERE = os.path.dirname(os.path.abspath(__file__))
# Without a body of its own, and a socket, which is no answer: `tests/api/socket.rs`.
ELSEWHERE = ["file.read.head", "socket"]
# Has no end, so the story alone looks at it.
LEFT_OUT = ["events", *ELSEWHERE]
# What cannot succeed again: there is one first administrator, what a browser brings back is good once, an archive
# is no example, a clone was given up, and everything is committed.
STORY_ALONE = ["auth.setup", "mcp.authorize.finish", "project.import", "git.cancel", "git.commit"]
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "ignored_auth",
    "unsupported_method",
]


def told(iris):
    story = Story(iris)
    story.tell()
    for name, failures in story.violations.items():
        print(f"{name} is not as documented: {failures}", file=sys.stderr)
    documented = {
        result.ok().definition.raw["operationId"] for result in story.schema.get_all_operations()
    }
    missing = sorted(documented - story.told.keys() - set(ELSEWHERE))
    if missing:
        print(f"no request succeeded of: {', '.join(missing)}", file=sys.stderr)
    print(f"{len(documented)} routes, {len(story.told)} of them succeeded in the story")
    return story, not story.violations and not missing


def made_up(iris, story):
    """The run with what is made up; what it found is on standard output."""
    left, answers = os.path.join(iris.dir, "story.json"), os.path.join(iris.dir, "answers")
    with open(left, "w") as file:
        json.dump({
            "url": iris.url, "token": story.token, "tokens": {"project.leave": story.ben_token},
            "password": PASSWORD, "told": story.told,
        }, file)
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run",
        f"{iris.url}/v1/openapi.json", "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--generation-deterministic",
        "--seed", "1", "--no-shrink", "--continue-on-failure", "--request-timeout", "20",
        "--workers", "1", "--warnings", "off", "--no-color",
    ]
    for name in LEFT_OUT:
        command += ["--exclude-operation-id", name]
    environment = {**os.environ, "PYTHONPATH": HERE, "SCHEMATHESIS_HOOKS": "hooks",
                   "IRIS_STORY": left, "IRIS_ANSWERS": answers}
    is_fine = subprocess.run(command, env=environment, cwd=iris.dir).returncode == 0
    with open(answers) as file:
        answered = [line.split() for line in file]
    succeeded = {name for name, outcome in answered if outcome == "succeeded"}
    missing = {name for name, _ in answered} - succeeded - set(STORY_ALONE)
    if missing:
        print(f"no request of the run succeeded of: {', '.join(sorted(missing))}", file=sys.stderr)
    return is_fine and not missing


def main():
    iris = Iris(sys.argv[1], Web())
    try:
        story, is_fine = told(iris)
        is_fine = made_up(iris, story) and is_fine
        if iris.process.poll() is not None:
            print(f"the server ended\n{iris.lines()}", file=sys.stderr)
            is_fine = False
    finally:
        iris.remove()
    sys.exit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
