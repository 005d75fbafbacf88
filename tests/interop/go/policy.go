// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/transports/alltransports"
)

type policyRequest struct {
	options
	Policy        string `json:"policy"` // a path
	Image         string `json:"image"`  // with its transport
	RequireSigned bool   `json:"require_signed"`
}

type policyReply struct {
	outcome
	Accepted bool `json:"accepted"`
	// Stage says what decided: policy (the file), open (reference or source), top or instance (of a list).
	Stage string `json:"stage"`
	// TopError is why the list itself was not accepted, when its instance was asked, too.
	TopError string `json:"top_error"`
}

// judgePolicy decides as the image proxy of a current skopeo: a single manifest must be accepted, of a list either the
// list or the chosen instance.
func judgePolicy(ctx context.Context, asked policyRequest, reply *policyReply) error {
	system, err := asked.systemContext()
	if err != nil {
		return err
	}
	reply.Stage = "policy"
	policy, err := signature.NewPolicyFromFile(asked.Policy)
	if err != nil {
		return err
	}
	judge, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer judge.Destroy()
	judge.RequireSignatureVerification(asked.RequireSigned)

	reply.Stage = "open"
	reference, err := alltransports.ParseImageName(asked.Image)
	if err != nil {
		return err
	}
	source, err := reference.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	defer source.Close()

	reply.Stage = "top"
	top := image.UnparsedInstance(source, nil)
	topError := allowed(judge.IsRunningImageAllowed(ctx, top))
	reply.Accepted = topError == nil
	if _, _, err := top.Manifest(ctx); err != nil { // whatever the policy thinks of it
		reply.Accepted = false
		return errors.Join(topError, err)
	}
	instance, err := chooseInstance(ctx, system, top)
	if err != nil {
		reply.Accepted = false
		reply.Stage = "instance"
		return err
	}
	if instance == nil || topError == nil {
		return topError
	}
	reply.Stage = "instance"
	reply.TopError = topError.Error()
	instanceError := allowed(judge.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, instance)))
	reply.Accepted = instanceError == nil
	return instanceError
}

// allowed turns the two answers of the library into one, so that none of them can be overlooked.
func allowed(verdict bool, err error) error {
	if err == nil && !verdict {
		return errors.New("refused without a reason")
	}
	return err
}
