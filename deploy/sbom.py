#!/usr/bin/env python3
"""What a release is made of, as CycloneDX JSON (https://cyclonedx.org/docs/1.6/json/).

`sbom.py TARGET` writes it: every package of Cargo.lock, with the scope `required` for what is compiled into the
server for that target and `excluded` for what is there for tests, tools and other machines alone.
`sbom.py --check FILE` fails where one is missing or is not what Cargo.lock says.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SERVER = "iris"


def locked():
    """The packages of Cargo.lock, by name and version, and what makes this lock different from another one."""
    with open(os.path.join(ROOT, "Cargo.lock"), "rb") as file:
        text = file.read()
    packages = {(package["name"], package["version"]): package
                for package in tomllib.loads(text.decode())["package"]}
    return packages, hashlib.sha256(text).hexdigest()


def compiled(target):
    """The packages that the server is compiled from, and how each one that could be is licensed."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    metadata = json.loads(text)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    key = lambda package_id: (packages[package_id]["name"], packages[package_id]["version"])
    waiting = [package_id for package_id in metadata["workspace_members"] if key(package_id)[0] == SERVER]
    found = set()
    while waiting:
        package_id = waiting.pop()
        if package_id in found:
            continue
        found.add(package_id)
        for dependency in nodes[package_id]["deps"]:
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return {key(package_id) for package_id in found}, {key(package_id): package
                                                       for package_id, package in packages.items()}


def purl(key):
    return "pkg:cargo/%s@%s" % key


def component(key, package, is_required, facts):
    made = {
        "type": "library", "bom-ref": purl(key), "name": key[0], "version": key[1], "purl": purl(key),
        "scope": "required" if is_required else "excluded",
    }
    if checksum := package.get("checksum"):
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if license := facts.get("license"):
        # As it was written before there were expressions.
        made["licenses"] = [{"expression": " OR ".join(it.strip() for it in license.split("/"))}]
    if repository := facts.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": repository}]
    return made


def needs(package, packages):
    """Names are alone where there is one version."""
    for text in package.get("dependencies", []):
        name, *version = text.split(" ")
        yield (name, version[0]) if version else next(key for key in packages if key[0] == name)


def bill(target):
    packages, digest = locked()
    required, facts = compiled(target)
    server = next(key for key in packages if key[0] == SERVER)
    components = [component(key, package, key in required, facts.get(key, {}))
                  for key, package in sorted(packages.items()) if key != server]
    about = {
        **component(server, packages[server], True, facts[server]), "type": "application",
        "properties": [{"name": "target", "value": target}],
    }
    del about["scope"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        # The same for the same lock and target.
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{purl(server)}?{target}#{digest}").urn,
        "metadata": {"component": about},
        "components": components,
        "dependencies": [{"ref": purl(key), "dependsOn": sorted({purl(it) for it in needs(package, packages)})}
                         for key, package in sorted(packages.items())],
    }


def problems(written):
    """What is wrong with a bill, in words."""
    packages, _ = locked()
    about = written["metadata"]["component"]
    all_of_them = [about, *written["components"]]
    there = {(it["name"], it["version"]): it for it in all_of_them}
    refs = {it["bom-ref"] for it in all_of_them}
    if (written["bomFormat"], written["specVersion"], about["name"]) != ("CycloneDX", "1.6", SERVER):
        yield "it is no bill of the server"
    if len(refs) != len(all_of_them):
        yield "a component is there twice"
    for key, package in packages.items():
        hashes = {it["content"] for it in there.get(key, {}).get("hashes", [])}
        if key not in there or hashes != ({package["checksum"]} if "checksum" in package else set()):
            yield f"{purl(key)} is not there as it is in Cargo.lock"
    for key in there.keys() - packages.keys():
        yield f"{purl(key)} is not in Cargo.lock"
    for it in all_of_them:
        if it.get("scope", "required") == "required" and "licenses" not in it:
            yield f"{it['purl']} has no licence"
    for edge in written["dependencies"]:
        if not {edge["ref"], *edge["dependsOn"]} <= refs:
            yield f"{edge['ref']} needs what is not there"


def main():
    if sys.argv[1:2] == ["--check"] and len(sys.argv) == 3:
        with open(sys.argv[2]) as file:
            found = list(problems(json.load(file)))
        sys.exit("\n".join(found) or None)
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    json.dump(bill(sys.argv[1]), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
