// Package schema brings a database's tables to the version that this library needs.
package schema

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"gorm.io/gorm"

	"github.com/hermeshttp/hermes/internal/dialect"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// ErrOutdated is returned by Check when migrations are missing.
var ErrOutdated = errors.New("hermes: schema is outdated")

// Migration is one step of the schema. Steps are only ever added.
type Migration struct {
	Version int    // from 1, without gaps
	Name    string // for people
	SQL     string // statements, each ended by a semicolon at the end of a line
}

// All returns the migrations for a dialect, in order. The SQL of each records its version, so that it may also be
// applied by hand or by another tool.
func All(d *dialect.Dialect) ([]Migration, error) {
	names, err := fs.Glob(files, d.Name+"/*.sql")
	if err != nil {
		return nil, err
	}
	var all []Migration
	for i, name := range names { // Glob returns them sorted
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		number, title, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(name, d.Name+"/"), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s does not have the number %d", name, i+1)
		}
		all = append(all, Migration{Version: version, Name: title, SQL: versionTable(d) + string(text) + record(d, version)})
	}
	return all, nil
}

func versionTable(d *dialect.Dialect) string {
	timeType := map[string]string{"postgres": "timestamptz", "sqlite": "datetime"}[d.Name]
	return "CREATE TABLE IF NOT EXISTS hermes_migration (version integer NOT NULL PRIMARY KEY, applied_at " + timeType + " NOT NULL);\n\n"
}

func record(d *dialect.Dialect, version int) string {
	return fmt.Sprintf("\nINSERT INTO hermes_migration (version, applied_at) VALUES (%d, %s) ON CONFLICT (version) DO NOTHING;\n", version, d.Now)
}

// Migrate applies the missing migrations in one transaction. Another process that migrates at the same time is waited
// for.
func Migrate(ctx context.Context, db *gorm.DB, d *dialect.Dialect) error {
	all, err := All(d)
	if err != nil {
		return err
	}
	return db.WithContext(ctx).Connection(func(conn *gorm.DB) error {
		return locked(ctx, conn, d, func() error { return apply(conn, all) })
	})
}

// locked runs work in a transaction that no other process' migration is in.
func locked(ctx context.Context, conn *gorm.DB, d *dialect.Dialect, work func() error) (err error) {
	begin := []string{"BEGIN IMMEDIATE"} // a deferred one that reads first cannot wait for the write lock
	if d.Name == "postgres" {
		// Under a stricter isolation the snapshot would be from before the wait for the lock.
		begin = []string{"BEGIN ISOLATION LEVEL READ COMMITTED", "SELECT pg_advisory_xact_lock(7305792346580223091)"}
	}
	for i, statement := range begin {
		if err := conn.Exec(statement).Error; err != nil {
			if i > 0 {
				rollback(ctx, conn)
			}
			return err
		}
	}
	if err := work(); err != nil {
		rollback(ctx, conn)
		return err
	}
	if err := conn.Exec("COMMIT").Error; err != nil {
		rollback(ctx, conn)
		return err
	}
	return nil
}

// rollback also runs when ctx has ended: the connection goes back to a pool that others use.
func rollback(ctx context.Context, conn *gorm.DB) {
	conn.WithContext(context.WithoutCancel(ctx)).Exec("ROLLBACK")
}

func apply(conn *gorm.DB, all []Migration) error {
	applied, err := applied(conn)
	if err != nil {
		return err
	}
	for _, m := range all {
		if applied[m.Version] {
			continue
		}
		for statement := range strings.SplitSeq(m.SQL, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if err := conn.Exec(statement).Error; err != nil {
				return fmt.Errorf("migration %d %s: %w", m.Version, m.Name, err)
			}
		}
	}
	return nil
}

func applied(conn *gorm.DB) (map[int]bool, error) {
	if !conn.Migrator().HasTable("hermes_migration") || !conn.Migrator().HasTable("failed_message") {
		return nil, nil // a table that somebody dropped is made again
	}
	var versions []int
	if err := conn.Raw("SELECT version FROM hermes_migration").Scan(&versions).Error; err != nil {
		return nil, err
	}
	set := make(map[int]bool, len(versions))
	for _, version := range versions {
		set[version] = true
	}
	return set, nil
}

// Check tells whether the database answers and has every migration; it may have later ones too.
func Check(ctx context.Context, db *gorm.DB, d *dialect.Dialect) error {
	all, err := All(d)
	if err != nil {
		return err
	}
	conn := db.WithContext(ctx)
	if err := conn.Exec("SELECT 1").Error; err != nil {
		return err
	}
	have, err := applied(conn)
	if err != nil {
		return err
	}
	for _, m := range all {
		if !have[m.Version] {
			return fmt.Errorf("%w: migration %d %s is missing", ErrOutdated, m.Version, m.Name)
		}
	}
	return nil
}
