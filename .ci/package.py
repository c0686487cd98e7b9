#!/usr/bin/env python3
"""Packs every package as for a registry, and compiles them from what was packed: `package.py`.

None of them is in a registry, so each takes the others from beside it. What reaches out of its own package, an
embedded file above all, is not found there. Tests stay behind, and so does the package that tests alone use.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_ONLY = "iris-testkit"


def cargo(*arguments, at=ROOT, **more):
    return subprocess.run(["cargo", *arguments], cwd=at, check=True, **more)


def packages(lock):
    return {(it["name"], it["version"]) for it in tomllib.loads(lock.read_text())["package"]}


def main():
    asked = cargo("metadata", "--format-version", "1", "--no-deps", "--locked", stdout=subprocess.PIPE)
    metadata = json.loads(asked.stdout)
    packed = Path(metadata["target_directory"], "package")
    shutil.rmtree(packed, ignore_errors=True)
    # The lock of a package would have to find the others in a registry; theirs together is below.
    cargo("package", "--locked", "--workspace", "--exclude", TESTS_ONLY, "--no-verify", "--allow-dirty",
          "--exclude-lockfile", "--quiet")

    wanted = {it["name"] for it in metadata["packages"]} - {TESTS_ONLY}
    place = packed / "unpacked"
    paths = {}
    for archive in sorted(packed.glob("*.crate")):
        with tarfile.open(archive) as files:
            for member in files:
                # Packed files have a time long ago, by which cargo would take them for what it knows.
                member.mtime = time.time()
                files.extract(member, place, filter="data")
        name = tomllib.loads((place / archive.stem / "Cargo.toml").read_text())["package"]["name"]
        paths[name] = archive.stem
        print(f"{archive.name}: {archive.stat().st_size / 1000:.0f} kB")
    if paths.keys() != wanted:
        sys.exit(f"these were not packed: {sorted(wanted - paths.keys())}")

    # The same profiles, so that what others wrote is not compiled again.
    profiles = re.findall(r"^\[profile\..*?(?=^\[(?!profile\.)|\Z)", (ROOT / "Cargo.toml").read_text(), re.M | re.S)
    # The same features of what nearly all stands on, too: what the package that stays behind asks of it.
    asks = tomllib.loads((ROOT / "crates/testkit/Cargo.toml").read_text())["dependencies"]
    features = [f'{name} = {{ version = "*", features = {json.dumps(asks[name]["features"])} }}'
             for name in ("tokio", "zerocopy")]
    manifest = ["[workspace]", 'resolver = "3"', f"members = {json.dumps(sorted(paths.values()))}", "",
                "[package]", 'name = "features"', "[lib]", 'path = "features.rs"', "[dependencies]", *features, "",
                "[patch.crates-io]", *(f'{name} = {{ path = "{path}" }}' for name, path in sorted(paths.items())), ""]
    (place / "Cargo.toml").write_text("\n".join([*manifest, *profiles]))
    (place / "features.rs").touch()
    lock = place / "Cargo.lock"
    shutil.copy(ROOT / "Cargo.lock", lock)
    environment = {**os.environ, "CARGO_TARGET_DIR": metadata["target_directory"]}
    cargo("check", "--workspace", at=place, env=environment)
    if others := packages(lock) - packages(ROOT / "Cargo.lock") - {("features", "0.0.0")}:
        sys.exit(f"Cargo.lock has not what the packages ask for: {sorted(others)}")


if __name__ == "__main__":
    main()
