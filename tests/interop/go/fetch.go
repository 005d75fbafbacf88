// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/transports/alltransports"
	"go.podman.io/image/v5/types"
)

type fetchRequest struct {
	options
	Image string `json:"image"` // with its transport
}

// fetchReply has raw bytes in base64. What the conversion or the config lacks is said in the errors of their own.
type fetchReply struct {
	outcome
	IndexDigest   string  `json:"index_digest"` // of the list, "" when there was none
	Digest        string  `json:"digest"`       // of the manifest before conversion
	MediaType     string  `json:"media_type"`
	Manifest      []byte  `json:"manifest"`
	OCIManifest   []byte  `json:"oci_manifest"`
	ManifestError string  `json:"manifest_error"`
	Config        []byte  `json:"config"`      // as stored
	FullConfig    []byte  `json:"full_config"` // as GetFullConfig re-encodes it
	ConfigError   string  `json:"config_error"`
	Layers        []layer `json:"layers"`
}

type layer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"media_type"`
}

// fetchImage opens an image and answers what the image proxy would say of manifest, config and layers.
func fetchImage(ctx context.Context, asked fetchRequest, reply *fetchReply) error {
	system, err := asked.systemContext()
	if err != nil {
		return err
	}
	reference, err := alltransports.ParseImageName(asked.Image)
	if err != nil {
		return err
	}
	source, err := reference.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	defer source.Close()
	unparsed := image.UnparsedInstance(source, nil)
	instance, err := chooseInstance(ctx, system, unparsed)
	if err != nil {
		return err
	}
	if instance != nil {
		if reply.IndexDigest, err = digestOf(ctx, unparsed); err != nil {
			return err
		}
		unparsed = image.UnparsedInstance(source, instance)
	}
	if reply.Digest, err = digestOf(ctx, unparsed); err != nil {
		return err
	}
	if reply.Manifest, reply.MediaType, err = unparsed.Manifest(ctx); err != nil {
		return err
	}
	parsed, err := image.FromUnparsedImage(ctx, system, unparsed)
	if err != nil {
		return err
	}
	if reply.OCIManifest, err = ociManifest(ctx, parsed); err != nil {
		reply.ManifestError = err.Error()
	}
	if err = reply.readConfig(ctx, parsed); err != nil {
		reply.ConfigError = err.Error()
	}
	return reply.readLayers(ctx, parsed)
}

func digestOf(ctx context.Context, unparsed *image.UnparsedImage) (string, error) {
	raw, _, err := unparsed.Manifest(ctx)
	if err != nil {
		return "", err
	}
	digest, err := manifest.Digest(raw)
	return digest.String(), err
}

// ociManifest passes an OCI manifest through and converts Docker's schema 2; nothing else is served.
func ociManifest(ctx context.Context, parsed types.Image) ([]byte, error) {
	raw, mediaType, err := parsed.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	switch mediaType {
	case v1.MediaTypeImageManifest:
		return raw, nil
	case manifest.DockerV2Schema2MediaType:
		converted, err := parsed.UpdatedImage(ctx, types.ManifestUpdateOptions{ManifestMIMEType: v1.MediaTypeImageManifest})
		if err != nil {
			return nil, err
		}
		raw, _, err = converted.Manifest(ctx)
		return raw, err
	default:
		return nil, fmt.Errorf("unsupported manifest type %q", mediaType)
	}
}

func (reply *fetchReply) readConfig(ctx context.Context, parsed types.Image) error {
	var err error
	if reply.Config, err = parsed.ConfigBlob(ctx); err != nil {
		return err
	}
	config, err := parsed.OCIConfig(ctx)
	if err != nil {
		return err
	}
	reply.FullConfig, err = json.Marshal(config)
	return err
}

func (reply *fetchReply) readLayers(ctx context.Context, parsed types.Image) error {
	layers, err := parsed.LayerInfosForCopy(ctx)
	if err != nil {
		return err
	}
	if layers == nil {
		layers = parsed.LayerInfos()
	}
	for _, each := range layers {
		reply.Layers = append(reply.Layers, layer{each.Digest.String(), each.Size, each.MediaType})
	}
	return nil
}
