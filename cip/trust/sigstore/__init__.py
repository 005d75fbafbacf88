# SPDX-License-Identifier: Apache-2.0
"""Sigstore signatures as attachments: keys, certificates, log entries."""
