// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"go.podman.io/image/v5/signature/sigstore"
)

type sigstoreKeyRequest struct {
	options
	Prefix     string `json:"prefix"` // PREFIX.pub and PREFIX.private are written
	Passphrase string `json:"passphrase"`
}

type sigstoreKeyReply struct {
	outcome
	Public  string `json:"public"` // paths
	Private string `json:"private"`
}

// generateSigstoreKey makes a key pair as `skopeo generate-sigstore-key` does.
func generateSigstoreKey(_ context.Context, asked sigstoreKeyRequest, reply *sigstoreKeyReply) error {
	pair, err := sigstore.GenerateKeyPair([]byte(asked.Passphrase))
	if err != nil {
		return err
	}
	reply.Public, reply.Private = asked.Prefix+".pub", asked.Prefix+".private"
	if err := os.WriteFile(reply.Public, pair.PublicKey, 0o644); err != nil {
		return err
	}
	return os.WriteFile(reply.Private, pair.PrivateKey, 0o600)
}
