#!/usr/bin/env bash
# Builds the program and prints the command that starts it, or fails with a reason.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bash "$here/../cargo.sh" "$here" tokio-benchmark librust-tokio-util-dev
