package testcrash

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/hermeshttp/hermes/internal/testdb"
)

var (
	cycles     = flag.Int("crash.cycles", 60, "how often each run kills a sender")
	seed       = flag.Uint64("crash.seed", 0, "what the choices are derived from; 0: something new")
	reportFile = flag.String("crash.report", "", "a Markdown `file` to write the table to")
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		os.Exit(beChild(spec))
	}
	flag.Parse()
	runTogether()
	os.Exit(testdb.Main(m))
}

// runTogether lets all runs go on at once, unless -parallel says how many: at their ends they wait for claims to run out.
func runTogether() {
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set("12")
	}
}
