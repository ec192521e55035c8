#!/bin/sh
# Install the Debian packages that Qt's wheels and a display-less run need; silent and quick when all are there.
# On other systems it does nothing; without root it names what is missing.
set -eu
[ -f /etc/debian_version ] && command -v dpkg-query >/dev/null || exit 0

wanted="libgl1 libegl1 libglib2.0-0 libfontconfig1 libxkbcommon0 libdbus-1-3
  xvfb xauth libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
# "Provides" counts: newer releases renamed libglib2.0-0 to libglib2.0-0t64.
installed=$(dpkg-query -W -f='${db:Status-Abbrev} ${Package}, ${Provides},\n' | sed -n 's/^ii *//p')
missing=""
for package in $wanted; do
  printf '%s\n' "$installed" | grep -qE "(^|, )$package( \(|,)" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "Missing Debian packages (needed for a window or a run without display):$missing; install them with: sudo apt-get install$missing" >&2
  exit 0
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
# shellcheck disable=SC2086  # a list of words
apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
