// Command bench measures Hermes beside its peers: retry clients, GORM itself, and River. One command, from the root of
// the repository, measures everything and prints tables:
//
//	go run ./bench
//
// It takes some ten minutes on an idle machine of two cores, and is worth nothing on a busy one; -run chooses
// measurements by name, -quick only shows that they work. It wants PostgreSQL installed, or a server named by -postgres;
// what it cannot measure it says. Files and the throwaway PostgreSQL cluster are made under TMPDIR: much of what is
// measured is waiting for its disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
)

const serverEnv = "HERMES_TEST_POSTGRES_DSN"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if os.Getenv(childEnv) != "" {
		err = beChild(ctx, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	only           *regexp.Regexp
	rounds         int
	quick          bool
	server         string
	markdown, json string
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{only: regexp.MustCompile("")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("run", "measure only what matches this `regexp`; what there is: "+names(), func(text string) (err error) {
		o.only, err = regexp.Compile(text)
		return err
	})
	flags.IntVar(&o.rounds, "rounds", 0, "rounds of each measurement; 0: as many as it needs")
	flags.BoolVar(&o.quick, "quick", false, "small and fast, to see that it works; not for quoting")
	flags.StringVar(&o.server, "postgres", os.Getenv(serverEnv), "`DSN` of a PostgreSQL server to create databases on; "+
		"default: $"+serverEnv+", else a throwaway cluster, else "+localServer)
	flags.StringVar(&o.markdown, "md", "", "write the tables to this `file` as Markdown")
	flags.StringVar(&o.json, "json", "", "write them to this `file` as JSON")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

// run measures what the arguments ask for. It fails if anything could not be measured, not if a goal is missed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hermes-bench-")
	if err != nil {
		return err
	}
	server := &server{dsn: o.server}
	defer func() { err = errors.Join(err, server.stop(), os.RemoveAll(dir)) }()

	all := chosen(o.only)
	if len(all) == 0 {
		return fmt.Errorf("-run: none of %s", names())
	}
	l := &lab{quick: o.quick, rounds: o.rounds, dir: dir, progress: stderr, server: server}
	r, failed := l.measure(ctx, all, stdout)
	return errors.Join(failed, r.write(o.markdown, r.markdown), r.write(o.json, r.json))
}

// measure makes measurements, and prints each as soon as it is there.
func (l *lab) measure(ctx context.Context, all []measurement, stdout io.Writer) (*report, error) {
	needsPostgres := slices.ContainsFunc(all, func(m measurement) bool { return m.needsPostgres })
	r := &report{Conditions: l.conditions(ctx, needsPostgres)}
	_, failed := fmt.Fprint(stdout, markdownConditions(r.Conditions))
	for _, m := range all {
		l.say("%s: %s", m.name, m.about)
		result, err := m.measure(ctx, l)
		if err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
		}
		r.Results = append(r.Results, result)
		_, printing := fmt.Fprint(stdout, "\n", result.markdown())
		failed = errors.Join(failed, err, printing)
		if ctx.Err() != nil {
			break
		}
	}
	return r, failed
}
