# SPDX-License-Identifier: Apache-2.0
"""Images in the local storage of podman, buildah and CRI-O."""
