#!/usr/bin/env bash
# Builds the program and prints the command that starts it; fails with a reason. Takes Netty's jars from
# NETTY_JARS (a folder), else from Debian's libnetty-java.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v javac >/dev/null || { echo "no Java compiler is installed" >&2; exit 1; }
jars=${NETTY_JARS:-/usr/share/java}
path=""
for name in common buffer resolver transport codec; do
    jar=$(compgen -G "$jars/netty-$name.jar" || compgen -G "$jars/netty-$name-[0-9]*.jar" || true)
    [ -n "$jar" ] || { echo "netty-$name is not in $jars (Debian: libnetty-java)" >&2; exit 1; }
    path+="$(head -n 1 <<<"$jar"):"
done
mkdir -p "$here/build"
javac -nowarn -d "$here/build" -cp "$path" "$here/NettyBenchmark.java" >&2
echo "java -Dio.netty.leakDetection.level=disabled -Xms1g -Xmx1g -cp $path$here/build NettyBenchmark"
