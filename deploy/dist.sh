#!/bin/sh
# Makes the archive of a release: the server, what it is installed with, and of what it is made.
#   deploy/dist.sh [--out DIR] [--target TRIPLE] [--binary FILE]
# Without --binary it builds the profile `dist`, which takes a quarter of an hour.
set -eu

# What a release may weigh without what debuggers read.
bytes_max=$((40 * 1000 * 1000))

here=$(cd "$(dirname "$0")/.." && pwd)
out="$here/target/dist/release" target='' binary=''
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out=$2; shift 2 ;;
    --target) target=$2; shift 2 ;;
    --binary) binary=$2; shift 2 ;;
    *) sed -n '2,4s/^# *//p' "$0" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' "$here/Cargo.toml")
name="iris-$version-${target:-$host}"
# The same archive from the same sources: nothing in it is younger than the last commit.
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}

built=''
if [ -z "$binary" ]; then
  (cd "$here" && cargo build --locked --profile dist --package iris ${target:+--target "$target"})
  binary="${CARGO_TARGET_DIR:-$here/target}/${target:+$target/}dist/iris" built=yes
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree="$work/$name"
mkdir -p "$tree/systemd" "$tree/completions" "$tree/man"
cp "$binary" "$tree/iris"
chmod 0755 "$tree/iris"

# Another machine's cannot be asked.
if [ "${target:-$host}" = "$host" ]; then
  case "$("$binary" --version)" in
    "iris $version") ;;
    *) echo "\`$binary\` is not the server of this version: $("$binary" --version)" >&2; exit 1 ;;
  esac
  # Each only if the server prints it.
  for shell in bash zsh fish; do
    "$binary" completions "$shell" >"$tree/completions/iris.$shell" 2>/dev/null ||
      rm -f "$tree/completions/iris.$shell"
  done
  "$binary" man >"$tree/man/iris.1" 2>/dev/null || rm -f "$tree/man/iris.1"
fi
rmdir "$tree/completions" "$tree/man" 2>/dev/null || true

# What debuggers and profilers read goes into a file of its own, the names of functions with it: they are a fifth
# of the program.
if command -v objcopy >/dev/null; then
  objcopy --only-keep-debug "$tree/iris" "$work/iris.debug"
  (cd "$work" && objcopy --strip-all --add-gnu-debuglink=iris.debug "$tree/iris")
  gzip -n "-${COMPRESSION:-9}" <"$work/iris.debug" >"$out/$name.debug.gz"
fi
size=$(($(wc -c <"$tree/iris")))
echo "iris: $size bytes"
if [ -n "$built" ] && [ "$size" -gt "$bytes_max" ]; then
  echo "a release has at most $bytes_max bytes" >&2
  exit 1
fi

cp "$here/LICENSE" "$here/README.md" "$here/CHANGELOG.md" "$here/deploy/install.sh" "$tree"
cp "$here/deploy/systemd/iris.service" "$here/deploy/systemd/iris.service.d/limits-of-commands.conf" "$tree/systemd"
python3 "$here/deploy/sbom.py" "${target:-$host}" >"$tree/iris.cdx.json"
(cd "$tree" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)

tar -C "$work" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -cf - "$name" |
  gzip -n "-${COMPRESSION:-9}" >"$out/$name.tar.gz"
cp "$tree/iris.cdx.json" "$out/$name.cdx.json"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$out/$name.tar.gz"
