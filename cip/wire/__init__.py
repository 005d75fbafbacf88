# SPDX-License-Identifier: Apache-2.0
"""How the parent asks; knows no registry and no policy."""
