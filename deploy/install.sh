#!/bin/sh
# Installs a release of Iris, or a newer one over it.
#   install.sh [--prefix DIR] [--dry-run] [ARCHIVE]
# ARCHIVE is iris-VERSION-TARGET.tar.gz with its .sha256 beside it; without it, what lies beside this script, as it
# is unpacked. Both are checked before anything is changed.
#   --prefix DIR   where it goes: /usr/local. With another one than /usr and /usr/local everything stays below it, no
#                  user is made, and systemd is not told.
#   --dry-run      say what would be done, and do nothing
# Configuration that is there is left as it is, and nothing is started or stopped.
set -eu
umask 022

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
failed() { echo "install.sh: $*" >&2; exit 1; }

prefix=/usr/local dry='' archive=''
while [ $# -gt 0 ]; do
  case "$1" in
    --prefix) [ $# -ge 2 ] || { usage >&2; exit 2; }; prefix=${2%/}; shift 2 ;;
    --dry-run) dry=yes; shift ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) [ -z "$archive" ] || { usage >&2; exit 2; }; archive=$1; shift ;;
  esac
done
case "$prefix" in
  /usr | /usr/local) etc=/etc system=yes ;;
  # A unit and a shell have to read it as it stands.
  *[!A-Za-z0-9/._-]*) failed "\`$prefix\` has characters in it that a path of a unit must not have" ;;
  /*) etc="$prefix/etc" system='' ;;
  *) failed "--prefix wants an absolute path" ;;
esac

run() { # COMMAND ARGUMENT..: the one way in which something is changed
  if [ -n "$dry" ]; then echo "+ $*"; else "$@"; fi
}

put() { # MODE FROM TO: replaces the file in one step, also while it runs
  run mkdir -p "$(dirname "$3")"
  if [ -f "$3" ] && cmp -s "$2" "$3"; then
    run chmod "$1" "$3"
    return
  fi
  run cp "$2" "$3.new"
  run chmod "$1" "$3.new"
  run mv -f "$3.new" "$3"
}

check() { # FILE: that what it lists is there and has these sums
  if command -v sha256sum >/dev/null; then sha256sum -c "$1" >/dev/null
  elif command -v shasum >/dev/null; then shasum -a 256 -c "$1" >/dev/null
  else failed "neither sha256sum nor shasum is here, so nothing can be checked"
  fi
}

# What there is to install, checked.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "$archive" ]; then
  [ -f "$archive" ] || failed "there is no \`$archive\`"
  [ -f "$archive.sha256" ] || failed "there is no \`$archive.sha256\` to check it with"
  (cd "$(dirname "$archive")" && grep -q " [ *]*$(basename "$archive")\$" "$(basename "$archive").sha256" &&
    check "$(basename "$archive").sha256") || failed "\`$archive\` is not what \`$archive.sha256\` says"
  tar -xzf "$archive" -C "$work"
  from=$(echo "$work"/iris-*)
else
  from=$(cd "$(dirname "$0")" && pwd)
fi
[ -f "$from/SHA256SUMS" ] || failed "\`$from\` is no unpacked release"
for file in iris iris.cdx.json systemd/iris.service LICENSE; do
  grep -q " [ *]*\./$file\$" "$from/SHA256SUMS" || failed "SHA256SUMS does not list \`$file\`"
done
(cd "$from" && check SHA256SUMS) || failed "a file of the release is not what SHA256SUMS says"
version=$("$from/iris" --version) || failed "the server of this release does not run on this machine"

# Where it goes; the unit to where `systemctl edit` and /etc/systemd/system come before it.

if [ -n "$system" ] && [ -z "$dry" ] && [ "$(id -u)" != 0 ]; then
  failed "only root can install into $prefix: try sudo, or --prefix"
fi
put 0755 "$from/iris" "$prefix/bin/iris"
sed -e "s#/usr/local/bin/iris#$prefix/bin/iris#" -e "s#/etc/iris/#$etc/iris/#" \
  "$from/systemd/iris.service" >"$work/iris.service"
put 0644 "$work/iris.service" "$prefix/lib/systemd/system/iris.service"
for file in LICENSE README.md CHANGELOG.md iris.cdx.json; do
  put 0644 "$from/$file" "$prefix/share/doc/iris/$file"
done
put 0644 "$from/systemd/limits-of-commands.conf" "$prefix/share/doc/iris/limits-of-commands.conf"
for page in "$from"/man/*.1; do
  [ ! -f "$page" ] || put 0644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
complete() { # SHELL PLACE
  [ ! -f "$from/completions/iris.$1" ] || put 0644 "$from/completions/iris.$1" "$prefix/share/$2"
}
complete bash bash-completion/completions/iris
complete zsh zsh/site-functions/_iris
complete fish fish/vendor_completions.d/iris.fish

# What is made once.

if [ ! -e "$etc/iris/iris.env" ]; then
  cat >"$work/iris.env" <<'ENV'
# Settings of the server, one a line; the README has the table of them. For example:
#IRIS_PUBLIC_URL=https://iris.example.com
#IRIS_ALLOWED_HOSTS=iris.example.com
ENV
  put 0600 "$work/iris.env" "$etc/iris/iris.env"
fi
if [ -n "$system" ] && ! id -u iris >/dev/null 2>&1; then
  if command -v useradd >/dev/null; then
    run useradd --system --home-dir /var/lib/iris --shell /usr/sbin/nologin iris
  else # as in Alpine
    run addgroup -S iris
    run adduser -S -D -H -h /var/lib/iris -s /sbin/nologin -G iris iris
  fi
fi
if [ -n "$system" ] && [ -d /run/systemd/system ]; then
  run systemctl daemon-reload
fi

[ -z "$dry" ] || exit 0
echo "$version is in $prefix/bin/iris"
if [ -n "$system" ] && [ -d /run/systemd/system ]; then
  if systemctl is-active --quiet iris; then
    echo "the server that runs is the one from before: systemctl restart iris"
  else
    echo "settings: $etc/iris/iris.env; then: systemctl enable --now iris"
  fi
fi
