#!/usr/bin/env bash
# Builds the echo server and prints the command that starts it, or fails with a reason.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bash "$here/../cargo.sh" "$here" tokio-echo librust-tokio-util-dev librust-tokio-dev librust-futures-util-dev
