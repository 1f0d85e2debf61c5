package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func ExampleClient_RetryAll() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(503, 503, 503, 200) // well again after three messages
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
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL, strings.NewReader("event"))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.SendMessage(req); err != nil {
			log.Fatal(err)
		}
	}

	sum, err := client.RetryAll(ctx, hermes.RetryOptions{
		RatePerHost: 100,
		Progress:    func(s hermes.RetrySummary) { log.Print(s.Delivered) },
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("delivered:", sum.Delivered, "failed:", sum.Failed)
	// Output: delivered: 3 failed: 0
}

func ExampleClient_Enqueue() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(200)
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	if err := db.Exec("CREATE TABLE orders (id integer)").Error; err != nil {
		log.Fatal(err)
	}

	// The order and the message that tells of it: both, or neither.
	err = db.Transaction(func(tx *gorm.DB) error {
		if err := tx.Exec("INSERT INTO orders VALUES (1)").Error; err != nil {
			return err
		}
		req, err := http.NewRequest(http.MethodPost, partner.URL, strings.NewReader(`{"order": 1}`))
		if err != nil {
			return err
		}
		_, err = client.Enqueue(ctx, tx, req, time.Time{})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	sum, err := client.RetryAll(ctx, hermes.RetryOptions{}) // a cron job's, elsewhere
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("delivered:", sum.Delivered)
	// Output: delivered: 1
}

func ExampleClient_Purge() {
	db, remove := openDatabase()
	defer remove()
	ctx := context.Background()
	client, err := hermes.New(db)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}

	// What nobody has looked after for a month.
	given := hermes.OlderThan(30 * 24 * time.Hour)
	given.States = []hermes.State{hermes.StateInvalid, hermes.StateExhausted}
	n, err := client.Purge(ctx, given)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("purged:", n)
	// Output: purged: 0
}
