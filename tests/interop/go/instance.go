// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// chooseInstance returns the digest that a list names for the platform of system, or nil when top is no list.
func chooseInstance(
	ctx context.Context, system *types.SystemContext, top *image.UnparsedImage,
) (*digest.Digest, error) {
	raw, mediaType, err := top.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if !manifest.MIMETypeIsMultiImage(manifest.NormalizedMIMEType(mediaType)) {
		return nil, nil
	}
	list, err := manifest.ListFromBlob(raw, mediaType)
	if err != nil {
		return nil, fmt.Errorf("parsing the list: %w", err)
	}
	instance, err := list.ChooseInstance(system)
	if err != nil {
		return nil, fmt.Errorf("choosing an instance: %w", err)
	}
	return &instance, nil
}
