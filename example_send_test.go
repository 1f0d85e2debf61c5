package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/hermeshttp/hermes"
)

func ExampleClient_SendMessage() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(503, 200) // fails once
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db, hermes.WithRetryInterval(10*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL+"/payments", strings.NewReader(`{"amount": 42}`))
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.SendMessage(req, hermes.Metadata(map[string]string{"order": "4711"}))
	if err != nil {
		log.Fatal(err) // neither delivered nor saved
	}
	if resp.Failed() {
		log.Print(resp.Err()) // it is the row resp.FailedMessageID
	}
	fmt.Println(resp.Outcome, "with", resp.StatusCode, "after", resp.Attempts, "attempts")
	// Output: delivered with 200 after 2 attempts
}
