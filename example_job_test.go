package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/hermeshttp/hermes"
)

// retryDue retries what is due. Any scheduler may run it, on any number of instances at once.
func retryDue(ctx context.Context, client *hermes.Client) error {
	for {
		msgs, err := client.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
		if err != nil || len(msgs) == 0 {
			return err
		}
		for _, msg := range msgs {
			if _, err := client.RetryMessage(ctx, msg); err != nil {
				log.Print(err) // the claim was lost to another instance, say
			}
		}
	}
}

func ExampleClient_GatherFailedMessagesForRetry() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(503, 503, 200) // well again after two messages
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db, hermes.WithMaxRetryAttempts(0))
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL, strings.NewReader("event"))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.SendMessage(req); err != nil {
			log.Fatal(err)
		}
	}

	if err := retryDue(ctx, client); err != nil {
		log.Fatal(err)
	}
	left, err := client.Monitor().Count(ctx, hermes.Filter{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("left:", left)
	// Output: left: 0
}
