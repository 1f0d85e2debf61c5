package hermes_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) {
	waitTogether()
	code := testdb.Main(m)
	// GORM's cache of prepared statements has a goroutine that nothing ends; some tests give Hermes a database with one.
	gormCache := goleak.IgnoreTopFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")
	if err := goleak.Find(gormCache); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// waitTogether lets more tests run at once than there are processors, unless -parallel says how many: most of them wait
// for a timeout or a database.
func waitTogether() {
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set("12")
	}
}
