// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.podman.io/image/v5/pkg/sysregistriesv2"
)

const requestTimeout = 60 * time.Second

// failable is every reply: a panic in the library becomes the text of its error.
type failable interface{ fail(error) }

// outcome is the part that all replies share; Error is empty on success.
type outcome struct {
	Error string `json:"error"`
}

func (o *outcome) fail(err error) { o.Error = err.Error() }

// request is what answerLines needs of every request.
type request interface{ environment() map[string]string }

// answerLines calls judge for each line of stdin until its end. A line that is no request of this kind ends the
// program: that is a mistake in a test, not an answer.
func answerLines[Request request, Reply any, PointerToReply interface {
	*Reply
	failable
}](judge func(context.Context, Request, *Reply) error) error {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	output.SetEscapeHTML(false)
	for {
		line, err := input.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var asked Request
			decoder := json.NewDecoder(bytes.NewReader(line))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&asked); err != nil {
				return fmt.Errorf("request %s: %w", line, err)
			}
			var reply Reply
			if err := protected(judge, asked, &reply); err != nil {
				PointerToReply(&reply).fail(err)
			}
			if err := output.Encode(&reply); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// protected runs one judgement in its own environment, without what an earlier one left in caches.
func protected[Request request, Reply any](
	judge func(context.Context, Request, *Reply) error, asked Request, reply *Reply,
) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("panic: %v", fault)
		}
	}()
	restore, err := setEnvironment(asked.environment())
	defer restore()
	if err != nil {
		return err
	}
	sysregistriesv2.InvalidateCache()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	return judge(ctx, asked, reply)
}

// setEnvironment changes the variables named and returns what puts them back.
func setEnvironment(variables map[string]string) (func(), error) {
	undo := []func(){}
	restore := func() {
		for _, step := range undo {
			step()
		}
	}
	for name, value := range variables {
		before, present := os.LookupEnv(name)
		if present {
			undo = append(undo, func() { os.Setenv(name, before) })
		} else {
			undo = append(undo, func() { os.Unsetenv(name) })
		}
		if err := os.Setenv(name, value); err != nil {
			return restore, err
		}
	}
	return restore, nil
}
