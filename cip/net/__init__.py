# SPDX-License-Identifier: Apache-2.0
"""HTTP with limits, on the standard library."""
