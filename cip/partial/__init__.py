# SPDX-License-Identifier: Apache-2.0
"""Room: parts of large blobs, kept across processes and reboots."""
