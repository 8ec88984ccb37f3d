#!/bin/sh
# Makes a component of app.py: build.sh GUEST.wasm. Needs componentize-py 0.25.1.
#
# CPython imports much of WASI, of which a model module may import almost nothing: --stub-wasi puts
# functions that trap in its place. It takes wasi:nn for WASI as well, so that interface goes by another
# name of the same length while the component is made, and gets its own back in the finished file.
set -eu
out=$(realpath "$1")
cd "$(dirname "$0")"
wit=$(mktemp -d)
trap 'rm -r "$wit"' EXIT
cp -r ../../wit/. "$wit"
sed -i 's/wasi:nn/wasx:nn/g' "$wit/model.wit" "$wit/deps/wasi-nn/nn.wit"
componentize-py --quiet --wit-path "$wit" --world module componentize --stub-wasi app --output "$out"
LC_ALL=C sed -i 's/wasx:nn/wasi:nn/g' "$out"
