package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// localServer is tried when there is neither a DSN nor a PostgreSQL to start.
const localServer = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"

// poolSize is how many connections a client that retries may have, the peers' too: more than any of them makes use of.
const poolSize = 32

// server is a PostgreSQL server on which databases can be created. It is found when it is first needed.
type server struct {
	dsn     string // "": to be found
	once    sync.Once
	err     error
	cluster *cluster // nil: not ours
}

// find returns the DSN of the server.
func (s *server) find(ctx context.Context) (string, error) {
	s.once.Do(func() {
		if s.dsn != "" {
			return
		}
		var failed error
		if s.cluster, failed = startCluster(ctx); failed == nil {
			s.dsn = s.cluster.dsn
			return
		}
		s.dsn = localServer
		if err := onServer(ctx, localServer, "SELECT 1"); err != nil {
			s.err = fmt.Errorf("no PostgreSQL: cannot start one (%w), and cannot reach one (%w)", failed, err)
		}
	})
	return s.dsn, s.err
}

func (s *server) stop() error {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.stop()
}

// database is a database of its own on the server.
type database struct {
	dsn  string
	drop func() error
}

// create creates an empty database.
func (s *server) create(ctx context.Context) (*database, error) {
	dsn, err := s.find(ctx)
	if err != nil {
		return nil, err
	}
	name := "hermes_bench_" + strings.ToLower(rand.Text())
	own, err := withDatabase(dsn, name)
	if err != nil {
		return nil, err
	}
	if err := onServer(ctx, dsn, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return nil, err
	}
	return &database{own, func() error {
		// The measurement may have been interrupted: that is no reason to leave the database behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return onServer(ctx, dsn, "DROP DATABASE "+name+" WITH (FORCE)")
	}}, nil
}

// withDatabase is dsn with another database of the same server.
func withDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " dbname=" + name, nil // the last of several counts
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

// onServer runs statements on a connection of their own, one after the other.
func onServer(ctx context.Context, dsn string, statements ...string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err = conn.Exec(ctx, statement); err != nil {
			err = fmt.Errorf("%s: %w", statement, err)
			break
		}
	}
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// open opens a database, by one of GORM's dialectors, with this many connections, all of which are kept.
func open(dialector gorm.Dialector, connections int) (*gorm.DB, error) {
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	return db, nil
}

func closeDB(db *gorm.DB) error {
	pool, err := db.DB()
	if err != nil {
		return err
	}
	return pool.Close()
}
