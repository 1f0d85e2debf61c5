package hermes_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) {
	code := testdb.Main(m)
	// GORM's cache of prepared statements has a goroutine that nothing ends; some tests give Hermes a database with one.
	gormCache := goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")
	if err := goleak.Find(gormCache); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
