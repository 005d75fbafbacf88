// SPDX-License-Identifier: Apache-2.0

// Registry serves go-containerregistry's in-memory registry, with the referrers API, on a free port of 127.0.0.1.
//
// `registry LOG` prints `listening on 127.0.0.1:PORT` once it answers; each request is a line `METHOD URI` of LOG.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: registry LOG")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "registry: %v\n", err)
		os.Exit(1)
	}
}

func serve(path string) error {
	requests, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer requests.Close()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	handler := registry.New(registry.WithReferrersSupport(true), quiet)
	var lock sync.Mutex
	told := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		lock.Lock()
		fmt.Fprintf(requests, "%s %s\n", request.Method, request.URL.RequestURI())
		lock.Unlock()
		handler.ServeHTTP(answer, request)
	})
	fmt.Printf("listening on %s\n", listener.Addr())
	return http.Serve(listener, told)
}
