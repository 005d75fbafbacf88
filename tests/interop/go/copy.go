// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/transports/alltransports"
)

type copyRequest struct {
	options            // of both sides
	Source      string `json:"source"` // with its transport, as Destination
	Destination string `json:"destination"`
	Policy      string `json:"policy"` // a path; "" accepts everything
	All         bool   `json:"all"`    // every instance of a list, not only the one of this platform
	// PreserveDigests fails rather than store a changed manifest.
	PreserveDigests bool `json:"preserve_digests"`
	// Format is the media type of the stored manifest, "" to leave it.
	Format           string `json:"format"`
	RemoveSignatures bool   `json:"remove_signatures"`
	// SignBy is the fingerprint of a key in the key ring of $GNUPGHOME.
	SignBy             string `json:"sign_by"`
	SignPassphrase     string `json:"sign_passphrase"`
	SigstoreKey        string `json:"sigstore_key"` // a private key file
	SigstorePassphrase string `json:"sigstore_passphrase"`
	SignIdentity       string `json:"sign_identity"` // "" for the name of the destination
}

type copyReply struct {
	outcome
	Digest string `json:"digest"` // of the manifest that was stored
}

// copyImage copies and signs as `skopeo copy` does.
func copyImage(ctx context.Context, asked copyRequest, reply *copyReply) error {
	system, err := asked.systemContext()
	if err != nil {
		return err
	}
	source, err := alltransports.ParseImageName(asked.Source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	destination, err := alltransports.ParseImageName(asked.Destination)
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	policy := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	if asked.Policy != "" {
		if policy, err = signature.NewPolicyFromFile(asked.Policy); err != nil {
			return err
		}
	}
	judge, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer judge.Destroy()
	how := copy.Options{
		SourceCtx:                        system,
		DestinationCtx:                   system,
		PreserveDigests:                  asked.PreserveDigests,
		ForceManifestMIMEType:            asked.Format,
		RemoveSignatures:                 asked.RemoveSignatures,
		SignBy:                           asked.SignBy,
		SignPassphrase:                   asked.SignPassphrase,
		SignBySigstorePrivateKeyFile:     asked.SigstoreKey,
		SignSigstorePrivateKeyPassphrase: []byte(asked.SigstorePassphrase),
	}
	if asked.All {
		how.ImageListSelection = copy.CopyAllImages
	}
	if asked.SignIdentity != "" {
		if how.SignIdentity, err = reference.ParseNamed(asked.SignIdentity); err != nil {
			return fmt.Errorf("sign_identity: %w", err)
		}
	}
	stored, err := copy.Image(ctx, judge, destination, source, &how)
	if err != nil {
		return err
	}
	digest, err := manifest.Digest(stored)
	reply.Digest = digest.String()
	return err
}
