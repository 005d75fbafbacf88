# SPDX-License-Identifier: Apache-2.0
"""Records for programs: events and audit as JSON lines."""
