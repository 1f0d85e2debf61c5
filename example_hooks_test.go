package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/hermeshttp/hermes"
)

func ExampleWithHooks() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(503)
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db, hermes.WithMaxRetryAttempts(1), hermes.WithRetryInterval(0), hermes.WithHooks(hermes.Hooks{
		AttemptDone: func(_ context.Context, info hermes.AttemptDoneInfo) {
			fmt.Printf("attempt %d: %s %d\n", info.Number, info.Kind, info.StatusCode)
		},
		Saved: func(_ context.Context, info hermes.SavedInfo) {
			fmt.Printf("saved after %d attempts\n", info.Attempts)
		},
	}))
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, partner.URL, strings.NewReader("event"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.SendMessage(req); err != nil {
		log.Fatal(err)
	}
	// Output:
	// attempt 1: status 503
	// attempt 2: status 503
	// saved after 2 attempts
}
