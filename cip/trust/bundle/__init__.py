# SPDX-License-Identifier: Apache-2.0
"""Room: Sigstore bundles v0.1 to v0.3 (bundles.md). Pure: bytes and trust material in, a verdict out, no clock."""
