# SPDX-License-Identifier: Apache-2.0
"""Simple signing: OpenPGP signatures and the key rings that check them."""
