# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of every parser that reads foreign bytes: only typed errors may come out (tests/fuzz/run --help)."""
