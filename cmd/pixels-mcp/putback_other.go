//go:build !unix

package main

import (
	"errors"
	"os"
)

// keeper is none: this process puts the terminal back as long as it lives.
type keeper struct{}

func settings(*os.File) (string, error) { return "", errors.ErrUnsupported }
func keep(*os.File, string) *keeper     { return nil }
func (*keeper) dismiss()                {}
func onResize(chan<- os.Signal)         {} // no signal tells of it: a command keeps the size that it began with
