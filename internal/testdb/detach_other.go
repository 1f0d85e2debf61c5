//go:build !unix

package testdb

import "os/exec"

// detach has nothing to do: without a Unix there is neither a root to give up
// nor, in practice, a shell to supervise the cluster.
func detach(*exec.Cmd, string) error { return nil }
