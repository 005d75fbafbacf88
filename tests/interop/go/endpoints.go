// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
)

type endpointsRequest struct {
	options
	Reference string `json:"reference"` // without transport, as docker:// takes it
}

type endpointsReply struct {
	outcome
	Prefix  string     `json:"prefix"` // of the entry that matched, "" when none did
	Sources []endpoint `json:"sources"`
}

type endpoint struct {
	Reference      string `json:"reference"` // as it is asked for there
	Location       string `json:"location"`
	Insecure       bool   `json:"insecure"`
	Blocked        bool   `json:"blocked"` // by the entry that matches the rewritten name
	NamespaceProxy string `json:"namespace_proxy"`
}

// judgeEndpoints lists the places that are tried for a reference, in their order.
func judgeEndpoints(_ context.Context, asked endpointsRequest, reply *endpointsReply) error {
	system, err := asked.systemContext()
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(asked.Reference)
	if err != nil {
		return err
	}
	named = reference.TagNameOnly(named)
	if _, tagged := named.(reference.NamedTagged); tagged {
		if _, digested := named.(reference.Canonical); digested {
			return fmt.Errorf("docker references with both a tag and digest are currently not supported")
		}
	}
	registry, err := sysregistriesv2.FindRegistry(system, named.Name())
	if err != nil {
		return err
	}
	if registry == nil { // the library does the same when nothing is configured
		registry = &sysregistriesv2.Registry{
			Prefix:   named.String(),
			Endpoint: sysregistriesv2.Endpoint{Location: named.String()},
		}
	} else {
		reply.Prefix = registry.Prefix
	}
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		return err
	}
	for _, source := range sources {
		physical, err := sysregistriesv2.FindRegistry(system, source.Reference.Name())
		if err != nil {
			return err
		}
		reply.Sources = append(reply.Sources, endpoint{
			Reference:      source.Reference.String(),
			Location:       source.Endpoint.Location,
			Insecure:       source.Endpoint.Insecure,
			Blocked:        physical != nil && physical.Blocked,
			NamespaceProxy: source.Endpoint.NamespaceProxy,
		})
	}
	return nil
}
