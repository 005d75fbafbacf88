#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a WebAssembly module that is an OCI artifact: `run_wasm.py IMAGE FUNCTION [INTEGER…]`."""

import sys

import wasmtime

from cip.client import open_proxy

WASM = "application/wasm"


def fetch(image: str, *options: str) -> bytes:
    """The module of `image`, verified. Raises ValueError when the artifact has none."""
    with open_proxy(image, options=options) as proxy:
        for layer in proxy.layers():
            if layer.media_type == WASM:
                with proxy.open_blob(layer.digest) as blob:
                    return blob.read()
    raise ValueError(f"{image}: expected a layer of type {WASM}, found none")


def call(module: bytes, function: str, *arguments: int) -> int:
    """Call an exported function on integers."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    instance = wasmtime.Instance(store, wasmtime.Module(engine, module), [])
    exported = instance.exports(store)[function]
    if not isinstance(exported, wasmtime.Func):
        raise ValueError(f"{function}: expected a function")
    return int(exported(store, *arguments))


if __name__ == "__main__":
    print(call(fetch(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
