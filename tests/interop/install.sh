#!/usr/bin/env bash
# Installs the peers that the tests/test_interop*.py and tests/test_haproxy.py speak to, and tshark for tests/test_cli_wireshark.py. What cannot be installed is named, and its
# test is skipped.
#
#   bash tests/interop/install.sh [PYTHON]     PYTHON: the one that runs the tests (default: python3)
#
# Debian packages need root or a sudo that asks nothing. No server is started by this. It ends with 0
# where all are there, 3 where Debian packages are wanted and cannot be had here (no apt-get, not
# root, no lists), 1 where a package failed.
set -u

python=${1:-python3}
# Debian's package, and the program that it is wanted for: one that is here from elsewhere will do.
debian=(git:git mosquitto:mosquitto memcached:memcached dnsmasq-base:dnsmasq erlang-base:escript
    openssh-client:ssh-agent postgresql:initdb haproxy:haproxy
    redis-server:redis-server tshark:tshark bsdutils:logger rsyslog:rsyslogd)
pypi=(twisted pyzmq python-lsp-server debugpy pyserial)
failed=() no_debian=0

# Servers lie where an ordinary PATH does not look; tests/interop/processes.py looks there too.
PATH=$PATH:/usr/sbin:/usr/local/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done

missing=()
for pair in "${debian[@]}"; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%:*}")
done

install_debian() {
    local as_root=() policy=/usr/sbin/policy-rc.d package
    if ! command -v apt-get >/dev/null; then
        echo "no apt-get here: install ${missing[*]} yourself"
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            echo "neither root nor a sudo that asks nothing: install ${missing[*]} yourself"
            return 1
        fi
    fi
    # Packages with a server start it when they are installed; this is where Debian asks whether to.
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null; then
        "${as_root[@]}" chmod +x $policy
        trap '"${as_root[@]}" rm -f $policy' RETURN
    fi
    "${as_root[@]}" apt-get update -qq || echo "apt-get update failed; trying with the lists that are here"
    if ! apt-cache show "${missing[0]}" >/dev/null 2>&1; then
        echo "apt-get knows no package ${missing[0]} here: install ${missing[*]} yourself"
        return 1
    fi
    for package in "${missing[@]}"; do
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$package" >/dev/null || failed+=("$package")
    done
}

if [ ${#missing[@]} -gt 0 ]; then install_debian || no_debian=1; fi

for package in "${pypi[@]}"; do
    "$python" -m pip install -q "$package" || failed+=("$package")
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "not installed: ${failed[*]}"
    exit 1
fi
[ $no_debian = 0 ] || exit 3
