# SPDX-License-Identifier: Apache-2.0
"""What the specifications define: values only, no input or output."""
