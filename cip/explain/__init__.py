# SPDX-License-Identifier: Apache-2.0
"""What would happen to an image name on this host, and why."""
