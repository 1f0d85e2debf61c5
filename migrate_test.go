package hermes_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// dump is the complete schema of a database.
func dump(t *testing.T, db *gorm.DB) []string {
	t.Helper()
	queries := []string{"SELECT type || '|' || name || '|' || tbl_name || '|' || COALESCE(sql, '') FROM sqlite_master ORDER BY 1"}
	if db.Name() == "postgres" {
		queries = []string{
			`SELECT concat_ws('|', table_name, ordinal_position, column_name, data_type, udt_name, is_nullable, column_default,
				character_maximum_length, numeric_precision, datetime_precision, collation_name, is_identity, is_generated)
				FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position`,
			`SELECT concat_ws('|', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attcollation,
				attstorage, attcompression, attstattarget) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
				WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped ORDER BY attrelid::regclass::text, attnum`,
			`SELECT indexname || '|' || indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`,
			`SELECT conname || '|' || pg_get_constraintdef(oid) FROM pg_constraint
				WHERE connamespace = 'public'::regnamespace ORDER BY 1`,
			`SELECT concat_ws('|', relname, relkind, reloptions, relpersistence, obj_description(oid)) FROM pg_class
				WHERE relnamespace = 'public'::regnamespace ORDER BY 1`,
		}
	}
	var all []string
	for _, query := range queries {
		var lines []string
		require.NoError(t, db.Raw(query).Scan(&lines).Error)
		require.NotEmpty(t, lines)
		all = append(all, lines...)
	}
	return all
}

// TestAUsersAutoMigrateChangesNothing: nor does Migrate when it is called again.
func TestAUsersAutoMigrateChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		want := dump(t, db)
		kept := saved(t, c)
		for range 2 {
			require.NoError(t, db.AutoMigrate(&hermes.FailedMessage{}))
			assert.Equal(t, want, dump(t, db))
			require.NoError(t, c.Migrate(context.Background()))
			assert.Equal(t, want, dump(t, db))
		}
		assert.Equal(t, kept, only(t, c))
	})
}

func TestMigrateAfterAUsersAutoMigrate(t *testing.T) {
	testdbEach(t, func(t *testing.T, db *gorm.DB) {
		require.NoError(t, db.AutoMigrate(&hermes.FailedMessage{}))
		c, err := hermes.New(db, hermes.WithMaxRetryAttempts(0), hermes.WithRetryInterval(0))
		require.NoError(t, err)
		assert.ErrorIs(t, c.Ready(context.Background()), hermes.ErrSchemaOutdated)
		require.NoError(t, c.Migrate(context.Background()))
		require.NoError(t, c.Ready(context.Background()))
		life(t, c)
		want := dump(t, db)
		require.NoError(t, db.AutoMigrate(&hermes.FailedMessage{}))
		assert.Equal(t, want, dump(t, db))
	})
}

// testdbEach runs a test on both databases, with no table yet.
func testdbEach(t *testing.T, test func(t *testing.T, db *gorm.DB)) {
	t.Parallel()
	testdb.Each(t, test)
}

func TestReady(t *testing.T) {
	testdbEach(t, func(t *testing.T, db *gorm.DB) {
		ctx := context.Background()
		c, err := hermes.New(db)
		require.NoError(t, err)
		assert.ErrorIs(t, c.Ready(ctx), hermes.ErrSchemaOutdated)
		require.NoError(t, c.Migrate(ctx))
		require.NoError(t, c.Ready(ctx))

		exec(t, db, "INSERT INTO hermes_migration (version, applied_at) VALUES (1000, ?)", ago(0))
		require.NoError(t, c.Ready(ctx), "a later version of the library was here")
		require.NoError(t, c.Migrate(ctx))
		exec(t, db, "DELETE FROM hermes_migration WHERE version = 1")
		assert.ErrorIs(t, c.Ready(ctx), hermes.ErrSchemaOutdated)
		require.NoError(t, c.Migrate(ctx))
		require.NoError(t, c.Ready(ctx))

		canceled, cancel := context.WithCancel(ctx)
		cancel()
		assert.ErrorIs(t, c.Ready(canceled), context.Canceled)
		assert.Error(t, c.Migrate(canceled))
		require.NoError(t, c.Ready(ctx))

		pool, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, pool.Close())
		err = c.Ready(ctx)
		assert.Error(t, err)
		assert.NotErrorIs(t, err, hermes.ErrSchemaOutdated)
		assert.Error(t, c.Migrate(ctx))
	})
}

// TestMigrateKeepsAUsersColumnAndAllData, in rows from before and after.
func TestMigrateKeepsAUsersColumnAndAllData(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		before := saved(t, c)
		exec(t, db, "ALTER TABLE failed_message ADD COLUMN ticket text DEFAULT 'none'")
		exec(t, db, "CREATE INDEX failed_message_ticket ON failed_message (ticket)")
		set(t, db, before.ID, "ticket", "T-1")
		want := dump(t, db)
		exec(t, db, "DELETE FROM hermes_migration")
		require.NoError(t, c.Migrate(context.Background()))
		assert.Equal(t, want, dump(t, db))
		assert.Equal(t, before, only(t, c))
		require.NoError(t, c.PurgeMessage(context.Background(), saved(t, c)))

		var tickets []string
		require.NoError(t, db.Raw("SELECT ticket FROM failed_message").Scan(&tickets).Error)
		assert.Equal(t, []string{"T-1"}, tickets)
		var found hermes.FailedMessage
		require.NoError(t, db.Where("ticket = ?", "T-1").First(&found).Error)
		assert.Equal(t, before.ID, found.ID)
	})
}

// TestMigrationsByHand: their SQL as a whole, as psql or the sqlite3 shell would run it.
func TestMigrationsByHand(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		all, err := hermes.Migrations(db.Name())
		require.NoError(t, err)
		require.NotEmpty(t, all)
		for range 2 { // a second time does no harm
			for i, m := range all {
				assert.Equal(t, i+1, m.Version)
				assert.NotEmpty(t, m.Name)
				runScript(t, db, dsn, m.SQL)
			}
		}
		c, err := hermes.New(db, hermes.WithMaxRetryAttempts(0))
		require.NoError(t, err)
		require.NoError(t, c.Ready(context.Background()))
		want := dump(t, db)
		require.NoError(t, c.Migrate(context.Background()))
		assert.Equal(t, want, dump(t, db))
		life(t, c)

		other := testdb.SQLite(t)
		if db.Name() == "postgres" {
			other = testdb.Postgres(t)
		}
		newClient(t, other)
		assert.Equal(t, want, dump(t, other), "the same as Migrate makes")
	})
}

func runScript(t *testing.T, db *gorm.DB, dsn, script string) {
	t.Helper()
	if db.Name() == "sqlite" {
		exec(t, db, script)
		return
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, script).ReadAll()
	require.NoError(t, err)
}

func TestProcessesMigrateAtOnce(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		var wg sync.WaitGroup
		for i := range 4 { // beside the other processes
			c, err := hermes.New(testdb.Open(t, dsn))
			require.NoError(t, err)
			wg.Go(func() { assert.NoError(t, c.Migrate(context.Background()), fmt.Sprint(i)) })
		}
		inProcesses(t, 2, "migrate", dsn)
		wg.Wait()
		c := newClient(t, testdb.Open(t, dsn), hermes.WithMaxRetryAttempts(0))
		require.NoError(t, c.Ready(context.Background()))
		life(t, c)
	})
}

// TestADroppedTableIsNoticedAndMadeAgain: Ready and Migrate looked at what was recorded only.
func TestADroppedTableIsNoticedAndMadeAgain(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		require.NoError(t, c.Ready(ctx))
		exec(t, db, "DROP TABLE failed_message")
		assert.ErrorIs(t, c.Ready(ctx), hermes.ErrSchemaOutdated)
		require.NoError(t, c.Migrate(ctx))
		require.NoError(t, c.Ready(ctx))
	})
}
