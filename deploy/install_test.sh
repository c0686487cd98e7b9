#!/bin/sh
# Makes an archive of a server and installs it: deploy/install_test.sh PATH/TO/iris
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed() { echo "install_test.sh: $*" >&2; exit 1; }
refused() { # WHY COMMAND ARGUMENT..
  why=$1
  shift
  if "$@" >"$work/said" 2>&1; then failed "it was not refused: $why"; fi
  grep -q "$why" "$work/said" || failed "it was not refused for \`$why\`: $(cat "$work/said")"
}

COMPRESSION=1 deploy/dist.sh --binary "$1" --out "$work/out" >/dev/null
archive=$(echo "$work"/out/iris-*.tar.gz)
python3 deploy/sbom.py --check "${archive%.tar.gz}.cdx.json"

# Nothing is done that is only asked for.
deploy/install.sh --dry-run "$archive" >"$work/said"
for line in 'useradd --system' '/usr/local/bin/iris' '/usr/local/lib/systemd/system/iris.service' \
  '/etc/iris/iris.env'; do
  # What is there already is not made again.
  grep -q -- "$line" "$work/said" || id -u iris >/dev/null 2>&1 || failed "$line: $(cat "$work/said")"
done
deploy/install.sh --dry-run --prefix "$work/dry" "$archive" >/dev/null
[ ! -e "$work/dry" ] || failed "a dry run left something"

# It is there, and works.
prefix="$work/prefix"
deploy/install.sh --prefix "$prefix" "$archive" >/dev/null
[ "$("$prefix/bin/iris" --version)" = "$("$1" --version)" ] || failed "another server is installed"
grep -q "^ExecStart=$prefix/bin/iris serve" "$prefix/lib/systemd/system/iris.service"
grep -q "^EnvironmentFile=-$prefix/etc/iris/iris.env" "$prefix/lib/systemd/system/iris.service"

# Once more, from what is unpacked: configuration stays, what is damaged is made good.
echo 'IRIS_BIND=127.0.0.1:1' >"$prefix/etc/iris/iris.env"
echo damaged >"$prefix/bin/iris"
before=$(find "$prefix" -type f | sort)
tar -xzf "$archive" -C "$work"
tree=$(echo "$work"/iris-*)
"$tree/install.sh" --prefix "$prefix" >/dev/null
[ "$(find "$prefix" -type f | sort)" = "$before" ] || failed "files came or went"
[ "$(cat "$prefix/etc/iris/iris.env")" = 'IRIS_BIND=127.0.0.1:1' ] || failed "configuration was changed"
cmp -s "$tree/iris" "$prefix/bin/iris" || failed "the server was not made good"

# What was changed on the way is not installed.
other="$work/other"
echo changed >>"$tree/LICENSE"
refused 'is not what SHA256SUMS says' "$tree/install.sh" --prefix "$other"
sed -i '/LICENSE/d' "$tree/SHA256SUMS"
refused 'does not list' "$tree/install.sh" --prefix "$other"
printf x >>"$archive"
refused 'is not what .* says' deploy/install.sh --prefix "$other" "$archive"
rm "$archive.sha256"
refused 'to check it with' deploy/install.sh --prefix "$other" "$archive"
refused 'absolute path' deploy/install.sh --prefix other "$archive"
[ ! -e "$other" ] || failed "something was installed all the same"
