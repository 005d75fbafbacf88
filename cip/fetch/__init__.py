# SPDX-License-Identifier: Apache-2.0
"""Room: the command `fetch`, which brings a whole image into an OCI layout, bytes, digests and signatures unchanged."""
