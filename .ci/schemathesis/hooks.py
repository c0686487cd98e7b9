"""For `schemathesis run`: it asks for what the story left, with what the story said as examples."""

import itertools
import json
import os

import requests
import schemathesis

from login import Browser, Program, code_from, query_of, start_of
from server import is_success

with open(os.environ["IRIS_STORY"]) as file:
    STORY = json.load(file)
URL, COUNT = STORY["url"], itertools.count()
# What ends the login that it is asked with gets that of another user each time.
ENDS_LOGIN = ["auth.logout", "auth.password.change", "user.delete"]
# What takes away, or closes, what all others are about gets another one of that.
ENDS_PROJECT = ["project.delete", "project.archive", "project.transfer", "project.restore"]
ENDS_SESSION = ["session.delete", "session.archive"]
# There is one provider that answers, commands may have no sandbox here, and in maintenance no run begins: anything
# else is refused with a status of the kind of which none is to be seen.
NARROWED = {
    "ModelRef": {"enum": [{"providerId": "demo", "modelId": "script"}]},
    "SessionMode": {"enum": ["default", "plan"]},
    "Maintenance": {"type": "null"},
}


@schemathesis.hook
def before_load_schema(context, schema):
    for path in schema["paths"].values():
        for operation in path.values():
            forget_examples(operation)
            if told := STORY["told"].get(operation["operationId"]):
                tell(operation, told)
            narrow(operation)
    for name, narrowed in NARROWED.items():
        schema["components"]["schemas"][f"Known{name}"] = narrowed


def forget_examples(operation):
    """Those of the document name what is not there. Headers make requests repeats of others, or conditional."""
    parameters = operation.get("parameters", [])
    operation["parameters"] = [it for it in parameters if it["in"] != "header"]
    answers = [it for it in operation["responses"].values() if "content" in it]
    for part in [*answers, operation.get("requestBody", {"content": {}})]:
        for media in part["content"].values():
            media.pop("example", None)
    for parameter in operation["parameters"]:
        parameter.pop("example", None)


def tell(operation, told):
    """Ids are those of the story, all else is an example of what it said."""
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if parameter["in"] == "path":
            parameter["schema"] = {"type": "string", "enum": [told["path"][name]]}
            parameter["example"] = told["path"][name]
        elif name in told["query"]:
            parameter["example"] = told["query"][name]
    if told["body"] is not None and "requestBody" in operation:
        for content in operation["requestBody"]["content"].values():
            content["example"] = told["body"]


def narrow(operation):
    if "requestBody" not in operation:
        return
    text = json.dumps(operation["requestBody"])
    for name in NARROWED:
        text = text.replace(f"#/components/schemas/{name}\"", f"#/components/schemas/Known{name}\"")
    operation["requestBody"] = json.loads(text)


def ask(path, body, token=STORY["token"]):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = requests.post(URL + path, json=body, headers=headers, timeout=30)
    response.raise_for_status()
    return response.json()["data"]


def operation_of(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.auth(refresh_interval=None)
class Login:
    def get(self, case, context):
        if operation_of(case) in ENDS_LOGIN:
            name = f"spare-{next(COUNT)}"
            login = {"email": f"{name}@example.com", "password": STORY["password"]}
            ask("/v1/admin/users", {**login, "username": name})
            return ask("/v1/auth/login", login, token=None)["accessToken"]
        return STORY["tokens"].get(operation_of(case), STORY["token"])

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(context, case, kwargs):
    operation, path = operation_of(case), case.path_parameters
    told = STORY["told"][operation]
    if operation in ENDS_PROJECT and path == told["path"]:
        path["projectId"] = project = ask("/v1/projects", {"name": "spare"})["id"]
        if operation == "project.transfer" and case.body == told["body"]:
            ask(f"/v1/projects/{project}/members", {**told["body"], "role": "admin"})
        elif operation == "project.restore" and case.body == told["body"]:
            case.body = {"backupId": ask(f"/v1/projects/{project}/backup", {})["id"]}
    elif operation in ENDS_SESSION and path == told["path"]:
        path["sessionId"] = ask(f"/v1/projects/{path['projectId']}/sessions", {})["id"]
    else:
        log_in_anew(operation, told, case)


def log_in_anew(operation, told, case):
    """What a browser brings is good once, and for a minute."""
    if operation == "auth.oauth.callback" and case.query == told["query"]:
        browser = Browser()
        case.query = query_of(browser.back_from(start_of(URL, {})))
        case.cookies = browser.cookies.get_dict()
    elif operation == "auth.oauth.redeem" and case.body == told["body"]:
        program = Program()
        case.body = code_from(start_of(URL, program.asks), program)
    elif operation == "identity.create" and case.body == told["body"]:
        program = Program()
        link = {**STORY["told"]["identity.link"]["body"], **program.asks}
        case.body = code_from(ask("/v1/me/identities/link", link)["url"], program)


@schemathesis.hook
def after_call(context, case, response):
    documented = case.operation.definition.raw["responses"]
    outcome = "succeeded" if is_success(documented, response.status_code) else "failed"
    with open(os.environ["IRIS_ANSWERS"], "a") as file:
        file.write(f"{operation_of(case)} {outcome}\n")
