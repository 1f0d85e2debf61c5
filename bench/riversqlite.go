package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// riverSQLite is the program of the directory riversqlite, which tells why it is one.
type riverSQLite struct{ program string }

func buildRiverSQLite(ctx context.Context, dir string) (*riverSQLite, error) {
	source, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/hermeshttp/hermes/bench").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the source of River's side, which wants to be looked for from the repository: %w", err)
	}
	program := filepath.Join(dir, "riversqlite.exe")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = filepath.Join(strings.TrimSpace(string(source)), "riversqlite")
	build.Env = append(os.Environ(), "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building River's side: %w: %s", err, output)
	}
	return &riverSQLite{program}, nil
}

// text tells how River is set up there.
func (r *riverSQLite) text() string {
	version := "of an unknown version"
	if info, err := buildinfo.ReadFile(r.program); err == nil {
		for _, module := range info.Deps {
			if module.Path == "github.com/riverqueue/river" {
				version = module.Version
			}
		}
	}
	return version + ", 1 connection, " + riverText
}

// drain lets River make n jobs in a new file, and work them.
func (r *riverSQLite) drain(ctx context.Context, n int) (sample, error) {
	dir, err := os.MkdirTemp(filepath.Dir(r.program), "river-")
	if err != nil {
		return nil, err
	}
	run := exec.CommandContext(ctx, r.program, filepath.Join(dir, "river.db"), strconv.Itoa(n))
	run.Stderr = os.Stderr
	output, err := run.Output()
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(output)), 64)
	if err != nil {
		return nil, err
	}
	return rate(n, time.Duration(seconds*float64(time.Second))), os.RemoveAll(dir)
}
