#!/usr/bin/env bash
# cargo.sh FOLDER BINARY PACKAGE...: builds the program in a folder and prints the command that starts
# it. Takes the crates of Debian's librust-*-dev packages where they are installed, else those that
# cargo has or can get; fails with a reason, which names the packages.
set -eu
here=$1 binary=$2
shift 2
command -v cargo >/dev/null || { echo "cargo is not installed" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-$here/build}
crates=/usr/share/cargo/registry
options=()
if compgen -G "$crates/tokio-util-*" >/dev/null; then
    options=(--offline
        --config "source.crates-io.replace-with='debian'"
        --config "source.debian.directory='$crates'")
elif ! cargo metadata --offline --format-version 1 --manifest-path "$here/Cargo.toml" >/dev/null 2>&1; then
    echo "the crates are not here: install $*, or run cargo fetch in $here" >&2
    exit 1
fi
# Build in a copy: the lock file depends on this machine's crates and is not part of the project.
mkdir -p "$target/crate"
cp -r "$here/Cargo.toml" "$here/src" "$target/crate/"
cargo build --quiet --release --manifest-path "$target/crate/Cargo.toml" --target-dir "$target" \
    "${options[@]}" >&2
echo "$target/release/$binary"
