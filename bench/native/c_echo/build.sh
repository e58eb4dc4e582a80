#!/usr/bin/env bash
# Builds the echo server by hand and prints the command that starts it, or fails with a reason.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v "${CC:-cc}" >/dev/null || { echo "no C compiler is installed" >&2; exit 1; }
[ "$(uname)" = Linux ] || { echo "the echo server by hand needs epoll, which only Linux has" >&2; exit 1; }
mkdir -p "$here/build"
"${CC:-cc}" -O2 -Wall -Wextra -o "$here/build/echo" "$here/echo.c" >&2
echo "$here/build/echo"
