# SPDX-License-Identifier: Apache-2.0
"""The JSON protocol of skopeo's experimental-image-proxy."""
