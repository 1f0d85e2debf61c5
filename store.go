package hermes

import (
	"bytes"
	"context"
	databasesql "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/callbacks"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/hermeshttp/hermes/internal/dialect"
	"github.com/hermeshttp/hermes/internal/headertext"
	internalschema "github.com/hermeshttp/hermes/internal/schema"
)

// store is the table. It writes SQL of its own: GORM's Save brings deleted rows back, its Updates drop zero values or
// bypass serializers, and its locking clauses are silently left out on SQLite.
type store struct {
	db          *gorm.DB      // for migrating
	pool        gorm.ConnPool // for all else, db's own: GORM would spend more on a statement's arguments than the driver does
	dialect     *dialect.Dialect
	saveTimeout time.Duration

	inTransaction bool // of the caller's: a statement that fails there is not repeated
}

func newStore(db *gorm.DB) (*store, error) {
	if db == nil || db.Config == nil || db.Dialector == nil {
		return nil, fmt.Errorf("%w: db: nil", ErrInvalidOption)
	}
	if db.DryRun {
		return nil, fmt.Errorf("%w: db: a DryRun session", ErrInvalidOption)
	}
	pool := db.ConnPool
	if db.Statement != nil {
		pool = db.Statement.ConnPool
	}
	if _, isTransaction := pool.(gorm.TxCommitter); isTransaction {
		return nil, fmt.Errorf("%w: db: a transaction", ErrInvalidOption)
	}
	if prepared, ok := pool.(*gorm.PreparedStmtDB); ok {
		pool = prepared.ConnPool // which would keep a prepared statement for every number of rows
	}
	d, err := dialectFor(db.Name())
	if err != nil {
		return nil, err
	}
	own, err := gorm.Open(&ownDialector{Dialector: db.Dialector, pool: pool},
		&gorm.Config{Logger: logger.Discard, SkipDefaultTransaction: true, DisableAutomaticPing: true})
	if err != nil {
		return nil, fmt.Errorf("%w: db: %w", ErrInvalidOption, err)
	}
	return &store{db: own, pool: pool, dialect: d, saveTimeout: 5 * time.Second}, nil
}

// ownDialector is the user's without what the user attached to their session: callbacks and plugins, which would see
// the bodies and headers in the statements.
type ownDialector struct {
	gorm.Dialector
	pool gorm.ConnPool
}

func (d *ownDialector) Initialize(db *gorm.DB) error {
	callbacks.RegisterDefaultCallbacks(db, &callbacks.Config{})
	db.ConnPool = d.pool
	return nil
}

func dialectFor(name string) (*dialect.Dialect, error) {
	d, err := dialect.For(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidOption, err)
	}
	return d, nil
}

func (s *store) ready(ctx context.Context) error {
	return internalschema.Check(ctx, s.db, s.dialect)
}

// columns are all of the table's, in the order in which insert and scannedRow have them.
const columns = "id, created_at, updated_at, sender, method, url, host, host_override, header, body, metadata, " +
	"idempotency_key, status_code, attempts, retries, failure_kind, last_error, retryable, next_attempt_at, schedule, " +
	"not_after, claims, claim_token, claimed_until, claimed_by, attempt_log"

// scannedRow is a row as the database hands it over. Its content is read afterwards, so that a row that cannot be read
// does not fail the others.
type scannedRow struct {
	msg                                       FailedMessage
	created, updated, next, notAfter, claimed dialect.ScanTime
	header                                    databasesql.RawBytes // good until the next row
	kind, metadata, schedule, attemptLog      string
}

func (r *scannedRow) targets() []any {
	m := &r.msg
	return []any{&m.ID, &r.created, &r.updated, &m.Sender, &m.Method, &m.URL, &m.Host, &m.HostOverride, &r.header, &m.Body,
		&r.metadata, &m.IdempotencyKey, &m.StatusCode, &m.Attempts, &m.Retries, &r.kind, &m.LastError, &m.Retryable,
		&r.next, &r.schedule, &r.notAfter, &m.Claims, &m.ClaimToken, &r.claimed, &m.ClaimedBy, &r.attemptLog}
}

// message returns what was scanned; r can be scanned into again.
func (r *scannedRow) message() *FailedMessage {
	m := new(FailedMessage)
	*m = r.msg
	m.CreatedAt, m.UpdatedAt = r.created.Time, r.updated.Time
	m.NextAttemptAt, m.NotAfter, m.ClaimedUntil = r.next.Ptr(), r.notAfter.Ptr(), r.claimed.Ptr()
	m.FailureKind = FailureKind(r.kind)
	header, err := headertext.Decode(r.header)
	m.Header = header
	err = errors.Join(err, fromJSON("metadata", r.metadata, &m.Metadata), fromJSON("schedule", r.schedule, &m.Schedule),
		fromJSON("attempt_log", r.attemptLog, &m.AttemptLog))
	if err != nil {
		m.unreadable = fmt.Errorf("%w: %s: %w", ErrUnreadable, m.ID, err)
	} else {
		_, m.unreadable = m.newTemplate()
	}
	return m
}

// toJSON writes what is empty as empty text, as GORM's serializer does.
func toJSON[T map[string]string | []time.Duration | []AttemptRecord](value T) string {
	if len(value) == 0 {
		return ""
	}
	return jsonText(value)
}

// jsonText is for maps and slices of plain types, which always can be marshaled.
func jsonText(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func fromJSON(column, text string, value any) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), value); err != nil {
		return fmt.Errorf("%s: malformed JSON", column)
	}
	return nil
}

func init() { //nolint:gochecknoinits // GORM keeps serializers for the whole process, by name
	schema.RegisterSerializer("hermes_header", headerSerializer{})
	schema.RegisterSerializer("hermes_body", bodySerializer{})
}

// headerSerializer lets GORM read and write FailedMessage.Header.
type headerSerializer struct{}

// Scan implements GORM's SerializerInterface.
func (headerSerializer) Scan(ctx context.Context, field *schema.Field, dst reflect.Value, value any) error {
	header, err := headertext.Decode(columnBytes(value))
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrUnreadable, err)
	}
	field.ReflectValueOf(ctx, dst).Set(reflect.ValueOf(header))
	return nil
}

// Value implements GORM's SerializerInterface.
func (headerSerializer) Value(_ context.Context, _ *schema.Field, _ reflect.Value, value any) (any, error) {
	header, _ := value.(http.Header)
	if err := checkHeader(header); err != nil {
		return nil, err
	}
	return bytesOf(headertext.Encode(header)), nil
}

// bodySerializer lets GORM write a FailedMessage.Body that is nil: the column takes no NULL.
type bodySerializer struct{}

// Scan implements GORM's SerializerInterface.
func (bodySerializer) Scan(ctx context.Context, field *schema.Field, dst reflect.Value, value any) error {
	field.ReflectValueOf(ctx, dst).SetBytes(bytes.Clone(columnBytes(value)))
	return nil
}

// Value implements GORM's SerializerInterface.
func (bodySerializer) Value(_ context.Context, _ *schema.Field, _ reflect.Value, value any) (any, error) {
	body, _ := value.([]byte)
	return bytesOf(body), nil
}

// columnBytes is a column's value as bytes. SQLite has it as text if somebody wrote it by hand.
func columnBytes(value any) []byte {
	if text, ok := value.(string); ok {
		return []byte(text)
	}
	content, _ := value.([]byte)
	return content
}
