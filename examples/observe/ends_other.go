//go:build !linux

package main

import "os/exec"

// endsWithUs does nothing: where this process is killed, the command goes on.
func endsWithUs(*exec.Cmd) (release func()) { return func() {} }
