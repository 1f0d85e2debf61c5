package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/hermeshttp/hermes"
)

// A canned query is a filter: take one, set a field, and pass it to List, All, Count or Reschedule.
func ExampleMonitor_List() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(404, 410, 503)
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db, hermes.WithMaxRetryAttempts(0))
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL+"/orders", strings.NewReader("event"))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.SendMessage(req); err != nil {
			log.Fatal(err)
		}
	}

	filter := hermes.InvalidMessages()
	filter.URLLike = "%/orders"
	page, err := client.Monitor().List(ctx, filter, hermes.ListOptions{Limit: 1, Ascending: true})
	for err == nil {
		for _, msg := range page.Messages {
			fmt.Println(msg.Method, msg.StatusCode, msg.State())
		}
		if page.Next.IsZero() {
			break
		}
		fmt.Println("next page") // page.Next.String() can stand in a URL
		page, err = client.Monitor().List(ctx, filter, hermes.ListOptions{Limit: 1, After: page.Next})
	}
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// POST 404 invalid
	// next page
	// POST 410 invalid
}
