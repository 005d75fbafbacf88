// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"go.podman.io/image/v5/types"
)

// options is the part that all requests share: what skopeo takes as flags, and the environment of this one request.
type options struct {
	Environment map[string]string `json:"environment"`
	// Root stands for `/` wherever the library looks in places of its own choice.
	Root              string `json:"root"`
	RegistriesConf    string `json:"registries_conf"`
	RegistriesConfDir string `json:"registries_conf_dir"`
	RegistriesD       string `json:"registries_d"`
	AuthFile          string `json:"authfile"`
	Creds             string `json:"creds"` // USER:PASSWORD
	CertDir           string `json:"cert_dir"`
	// TLSVerify is nil where the flag is not given, which is not the same as true.
	TLSVerify *bool  `json:"tls_verify"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	Variant   string `json:"variant"`
	TmpDir    string `json:"tmpdir"`
}

func (o options) environment() map[string]string { return o.Environment }

func (o options) systemContext() (*types.SystemContext, error) {
	system := &types.SystemContext{
		RootForImplicitAbsolutePaths: o.Root,
		SystemRegistriesConfPath:     o.RegistriesConf,
		SystemRegistriesConfDirPath:  o.RegistriesConfDir,
		RegistriesDirPath:            o.RegistriesD,
		AuthFilePath:                 o.AuthFile,
		DockerCertPath:               o.CertDir,
		OSChoice:                     o.OS,
		ArchitectureChoice:           o.Arch,
		VariantChoice:                o.Variant,
		BigFilesTemporaryDir:         o.TmpDir,
		DockerRegistryUserAgent:      "judge",
	}
	if o.TLSVerify != nil {
		system.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*o.TLSVerify)
	}
	if o.Creds != "" {
		user, password, found := strings.Cut(o.Creds, ":")
		if !found {
			return nil, fmt.Errorf("creds: expected USER:PASSWORD")
		}
		system.DockerAuthConfig = &types.DockerAuthConfig{Username: user, Password: password}
	}
	return system, nil
}
