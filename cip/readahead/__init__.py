# SPDX-License-Identifier: Apache-2.0
"""Room: layers that are requested before the parent asks for them."""
