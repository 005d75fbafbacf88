# SPDX-License-Identifier: Apache-2.0
"""Gives up what is not needed any more, and runs the few programs that are."""
