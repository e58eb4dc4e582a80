#!/usr/bin/env bash
# Installs the peers that tests/test_peers.py and tests/test_haproxy.py speak to. What cannot be installed is named, and its test
# is skipped.
#
#   bash tests/peers/install.sh [PYTHON]     PYTHON: the one that runs the tests (default: python3)
#
# Debian packages need root or a sudo that asks nothing. No server is started by this.
set -u

python=${1:-python3}
debian=(git mosquitto memcached dnsmasq-base erlang-base openssh-client postgresql haproxy)
pypi=(twisted pyzmq python-lsp-server)
failed=()

if command -v apt-get >/dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    # Packages with a server start it when they are installed; this is where Debian asks whether to.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null; then
        "${as_root[@]}" chmod +x $policy
        trap '"${as_root[@]}" rm -f $policy' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    missing=()
    for package in "${debian[@]}"; do
        dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed$' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        "${as_root[@]}" apt-get update -qq || echo "apt-get update failed; trying with the lists that are here"
        for package in "${missing[@]}"; do
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$package" >/dev/null || failed+=("$package")
        done
    fi
else
    echo "no apt-get here: install ${debian[*]} yourself"
fi

for package in "${pypi[@]}"; do
    "$python" -m pip install -q "$package" || failed+=("$package")
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "not installed: ${failed[*]}"
fi
