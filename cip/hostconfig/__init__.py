# SPDX-License-Identifier: Apache-2.0
"""What the host's administrator decided: configuration files into values."""
