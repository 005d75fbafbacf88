# SPDX-License-Identifier: Apache-2.0
"""May these bytes be believed? No network, no environment, no file.

To read it at one sitting: `evaluation` (which requirements apply, and whether all accept), `requirements` (what one
is), `policy` with `scopes` (the file), `payload` with `matching` (what a signature says, and about what). That is the
frame. Then either OpenPGP, `simplesigning` with `keyring` and `selftest`, or sigstore, `sigstore` with `certificates`,
`rekor` and `keys`; `materials` and `armor` serve both.
"""
