package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

const tableName = "failed_message"

// table is a failed_message on PostgreSQL, in a database of its own, to be filled and emptied again and again.
type table struct {
	*database
	db       *gorm.DB
	template *template
}

func (l *lab) newTable(ctx context.Context, connections int) (*table, error) {
	database, err := l.server.create(ctx)
	if err != nil {
		return nil, err
	}
	db, err := open(postgres.Open(database.dsn), connections)
	if err != nil {
		return nil, errors.Join(err, database.drop())
	}
	t := &table{database: database, db: db}
	if t.template, err = newTemplate(ctx, db); err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

func (t *table) end() error { return errors.Join(closeDB(t.db), t.drop()) }

// fill makes it a table of n rows that are due, and no others.
func (t *table) fill(ctx context.Context, n int) error {
	db := t.db.WithContext(ctx)
	if err := empty(db, tableName); err != nil {
		return err
	}
	if err := t.copy(ctx, n, t.template.another); err != nil {
		return err
	}
	return settle(db, tableName)
}

// copy writes n rows by COPY.
func (t *table) copy(ctx context.Context, n int, row func(i int) *hermes.FailedMessage) error {
	conn, err := pgx.Connect(ctx, t.dsn)
	if err != nil {
		return err
	}
	return errors.Join(copyRows(ctx, conn, n, row), conn.Close(ctx))
}

// empty deletes a table's rows and leaves no trace of them.
func empty(db *gorm.DB, name string) error {
	if db.Name() == "sqlite" {
		return db.Exec("DELETE FROM " + name).Error
	}
	return db.Exec("TRUNCATE " + name).Error
}

// settle does now what the database would do at some time for what has been written: before every turn, so that nobody
// pays for what another left behind.
func settle(db *gorm.DB, name string) error {
	statements := []string{"VACUUM (ANALYZE) " + name, "CHECKPOINT"}
	if db.Name() == "sqlite" {
		statements = []string{"PRAGMA wal_checkpoint(TRUNCATE)"}
	}
	for _, statement := range statements {
		if err := db.Exec(statement).Error; err != nil {
			return err
		}
	}
	return nil
}

// remaining is how many rows a table has.
func remaining(db *gorm.DB) (n int64, err error) {
	err = db.Model(&hermes.FailedMessage{}).Count(&n).Error
	return n, err
}
