// SPDX-License-Identifier: Apache-2.0

// Judge answers questions about images as the library of a current skopeo does.
//
// `judge SUBCOMMAND` reads one JSON request per line from stdin and writes one JSON reply per line to stdout, in
// order, so that hundreds of cases cost one process. A failure is an answer: its text is in `error`. Each subcommand
// has a file of its own with the request and the reply as Go structs.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"go.podman.io/storage/pkg/reexec"
)

var subcommands = map[string]func() error{
	"policy":                func() error { return answerLines(judgePolicy) },
	"reference":             func() error { return answerLines(judgeReference) },
	"endpoints":             func() error { return answerLines(judgeEndpoints) },
	"fetch":                 func() error { return answerLines(fetchImage) },
	"copy":                  func() error { return answerLines(copyImage) },
	"generate-sigstore-key": func() error { return answerLines(generateSigstoreKey) },
}

func main() {
	if reexec.Init() { // the storage library starts its program again to unpack layers
		return
	}
	if len(os.Args) != 2 || subcommands[os.Args[1]] == nil {
		names := []string{}
		for name := range subcommands {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: judge {%s}\n", strings.Join(names, "|"))
		os.Exit(2)
	}
	if err := subcommands[os.Args[1]](); err != nil {
		fmt.Fprintf(os.Stderr, "judge: %v\n", err)
		os.Exit(1)
	}
}
