# SPDX-License-Identifier: Apache-2.0
"""Every place of images other than a registry; nothing returned here has been checked."""
