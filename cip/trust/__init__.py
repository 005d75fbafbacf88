# SPDX-License-Identifier: Apache-2.0
"""May these bytes be believed? No network, no environment, no file."""
