# SPDX-License-Identifier: Apache-2.0
"""Room: what all requirements share that look at signatures: names, payloads, key material, and one that must do."""
