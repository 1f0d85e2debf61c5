package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/uuidv7"
)

// template is the row that SendMessage makes of a message that failed, for others to be made after it.
type template struct{ row *hermes.FailedMessage }

// newTemplate creates the table and lets a message fail. The table is left empty.
func newTemplate(ctx context.Context, db *gorm.DB) (*template, error) {
	client, err := failingClient(db)
	if err != nil {
		return nil, err
	}
	if err := client.Migrate(ctx); err != nil {
		return nil, err
	}
	req, err := newRequest(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := client.SendMessage(req)
	if err != nil {
		return nil, err
	}
	row, err := client.Monitor().Get(ctx, resp.FailedMessageID)
	if err != nil {
		return nil, err
	}
	return &template{row}, client.PurgeMessage(ctx, row)
}

// failingClient fails at once with all that it sends.
func failingClient(db *gorm.DB) (*hermes.Client, error) {
	transport := stub{status: http.StatusInternalServerError}
	return hermes.New(db, hermes.WithHTTPClient(&http.Client{Transport: transport}), hermes.WithMaxRetryAttempts(0))
}

// another makes the i-th row: another message, due since an hour, and a bit less the later it comes.
func (t *template) another(i int) *hermes.FailedMessage {
	row := *t.row
	row.ID = uuidv7.New()
	row.IdempotencyKey = row.ID
	row.Header = row.Header.Clone()
	row.Header.Set("Idempotency-Key", row.ID)
	due := row.CreatedAt.Add(time.Duration(i)*time.Microsecond - time.Hour)
	row.NextAttemptAt = &due
	return &row
}

// rows makes n rows.
func (t *template) rows(n int) []*hermes.FailedMessage {
	all := make([]*hermes.FailedMessage, n)
	for i := range all {
		all[i] = t.another(i)
	}
	return all
}

// copyRows writes rows with PostgreSQL's COPY, the fastest way there is.
func copyRows(ctx context.Context, conn *pgx.Conn, n int, row func(i int) *hermes.FailedMessage) error {
	model, err := schema.Parse(&hermes.FailedMessage{}, &sync.Map{}, schema.NamingStrategy{})
	if err != nil {
		return err
	}
	source := pgx.CopyFromSlice(n, func(i int) ([]any, error) { return columnValues(ctx, model, row(i)) })
	_, err = conn.CopyFrom(ctx, pgx.Identifier{model.Table}, model.DBNames, source)
	return err
}

// columnValues are a row's as GORM writes them.
func columnValues(ctx context.Context, model *schema.Schema, row *hermes.FailedMessage) ([]any, error) {
	values := make([]any, len(model.DBNames))
	var errs error
	for i, name := range model.DBNames {
		values[i], _ = model.FieldsByDBName[name].ValueOf(ctx, reflect.ValueOf(row).Elem())
		if valuer, ok := values[i].(driver.Valuer); ok {
			value, err := valuer.Value()
			values[i], errs = value, errors.Join(errs, err)
		}
	}
	return values, errs
}

// create writes rows with one INSERT for each batch of them.
func create(ctx context.Context, db *gorm.DB, rows []*hermes.FailedMessage, batch int) error {
	for start := 0; start < len(rows); start += batch {
		if err := db.WithContext(ctx).Create(rows[start:min(start+batch, len(rows))]).Error; err != nil {
			return err
		}
	}
	return nil
}
