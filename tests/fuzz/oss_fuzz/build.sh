#!/bin/bash -eu
# Runs in the image of OSS-Fuzz, which sets CC, CFLAGS, LIB_FUZZING_ENGINE, SRC and OUT.
FRAMECODEC_REQUIRE_EXTENSIONS=1 pip3 install ".[testing]"
compile_python_fuzzer tests/fuzz/oss_fuzz/fuzz_orders.py --paths . --add-data tests/fuzz/guided_seeds.txt:tests/fuzz

# The seeds: one file each.
mkdir "$WORK/seeds"
number=0
while read -r line; do
    xxd -r -p <<<"$line" >"$WORK/seeds/$((number++))"
done <tests/fuzz/guided_seeds.txt
zip -qj "$OUT/fuzz_orders_seed_corpus.zip" "$WORK"/seeds/*
