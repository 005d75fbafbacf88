// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"go.podman.io/image/v5/transports/alltransports"
)

type referenceRequest struct {
	options
	Text string `json:"text"` // with its transport: docker://…
}

type referenceReply struct {
	outcome
	Transport       string   `json:"transport"`
	Within          string   `json:"within"` // what follows the transport, normalised
	DockerReference string   `json:"docker_reference"`
	Identity        string   `json:"identity"`   // of the policy
	Namespaces      []string `json:"namespaces"` // of the policy, nearest first
}

// judgeReference tells how a reference is understood and which policy scopes it has.
func judgeReference(_ context.Context, asked referenceRequest, reply *referenceReply) error {
	reference, err := alltransports.ParseImageName(asked.Text)
	if err != nil {
		return err
	}
	reply.Transport = reference.Transport().Name()
	reply.Within = reference.StringWithinTransport()
	if named := reference.DockerReference(); named != nil {
		reply.DockerReference = named.String()
	}
	reply.Identity = reference.PolicyConfigurationIdentity()
	reply.Namespaces = reference.PolicyConfigurationNamespaces()
	return nil
}
