package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// conditions are what all numbers depend on.
func (l *lab) conditions(ctx context.Context, withPostgres bool) []condition {
	all := []condition{
		{"when", time.Now().UTC().Format(time.DateOnly)},
		{"machine", fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpu())},
		{"load before", load()},
		{"disk", l.disk()},
		{"Go", fmt.Sprintf("%s, GOMAXPROCS %d", runtime.Version(), runtime.GOMAXPROCS(0))},
		{"modules", strings.Join(peerVersions(), ", ")},
	}
	if withPostgres {
		all = append(all, condition{"PostgreSQL", l.postgresSettings(ctx)})
	}
	if l.quick {
		all = append(all, condition{"quick", "yes: these numbers are not for quoting"})
	}
	return all
}

// cpu is the processor's name, where the system tells it in the way of Linux.
func cpu() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	_, rest, _ := strings.Cut(string(info), "model name\t: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}

// load is what else the machine is busy with, as the number of processes that run or want to, over 1, 5 and 15 minutes.
func load() string {
	average, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(average))[:3], " ")
}

// disk tells how long a commit waits for the disk at least.
func (l *lab) disk() string {
	file, err := os.CreateTemp(l.dir, "fsync")
	if err != nil {
		return err.Error()
	}
	defer file.Close() //nolint:errcheck // it has served its purpose
	var times []float64
	for range 51 {
		start := time.Now()
		if _, err := file.Write(make([]byte, 8192)); err != nil {
			return err.Error()
		}
		if err := file.Sync(); err != nil {
			return err.Error()
		}
		times = append(times, time.Since(start).Seconds()*1000)
	}
	return "write and fsync of 8 KiB: " + number(median(times)) + " ms"
}

// postgresSettings are the version of the server and the settings that decide how much a commit costs.
func (l *lab) postgresSettings(ctx context.Context) string {
	dsn, err := l.server.find(ctx)
	if err != nil {
		return err.Error()
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err.Error()
	}
	defer conn.Close(ctx) //nolint:errcheck // it has served its purpose
	var settings string
	err = conn.QueryRow(ctx, "SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name DESC) FROM pg_settings"+
		" WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'autovacuum', 'shared_buffers')").
		Scan(&settings)
	if err != nil {
		return err.Error()
	}
	return settings
}

// peerVersions are those of the modules that are compared, as this program was built with them.
func peerVersions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return []string{"unknown"}
	}
	var all []string
	for _, module := range info.Deps {
		switch module.Path {
		case "github.com/hashicorp/go-retryablehttp", "github.com/failsafe-go/failsafe-go", "github.com/gojek/heimdall/v7",
			"github.com/go-resty/resty/v2", "github.com/riverqueue/river", "gorm.io/gorm", "github.com/jackc/pgx/v5",
			"github.com/mattn/go-sqlite3":
			all = append(all, strings.TrimPrefix(module.Path, "github.com/")+" "+module.Version)
		}
	}
	return all
}
