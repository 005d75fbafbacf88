# SPDX-License-Identifier: Apache-2.0
"""May these bytes be believed? No network, no environment, no file.

To read it at one sitting: `evaluation` (which requirements apply, and whether all accept), `requirements` (what one
is, and what it accepts), `policy` with `scopes` (the file), `payload` with `matching` (what a signature says, and about
what). That is the frame. Then either `openpgp`, `simplesigning` with `keyring` and `selfsignatures`, or `sigstore`,
`requirement` with `certificates`, `logs` and `keys`, and `bundle` beside it; `materials` and `armor` serve all.
"""
