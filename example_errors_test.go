package hermes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/hermeshttp/hermes"
)

// What SendMessage returns when neither the receiver nor the database is there, and the way back.
func ExampleNotSavedError() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(503)
	defer partner.Close()

	ctx := context.Background()
	client, err := hermes.New(db, hermes.WithMaxRetryAttempts(0), hermes.WithSaveTimeout(50*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, partner.URL, strings.NewReader("event"))
	if err != nil {
		log.Fatal(err)
	}

	_, err = client.SendMessage(req) // the table is not there yet

	var lost *hermes.NotSavedError
	if !errors.As(err, &lost) {
		log.Fatal("saved, or delivered: ", err)
	}
	kept, err := lost.Message.MarshalBinary() // to a file, say
	if err != nil {
		log.Fatal(err)
	}

	// Later, when the database is well:
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	var msg hermes.FailedMessage
	if err := msg.UnmarshalBinary(kept); err != nil {
		log.Fatal(err)
	}
	for range 2 { // as often as you like
		if err := client.Save(ctx, &msg); err != nil {
			log.Fatal(err)
		}
	}
	saved, err := client.Monitor().Count(ctx, hermes.Filter{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("rows:", saved)
	// Output: rows: 1
}

// A message that is not worth a row comes back as an error.
func ExampleSendError() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(404)
	defer partner.Close()

	client, err := hermes.New(db)
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, partner.URL+"/ping?token=secret", nil)
	if err != nil {
		log.Fatal(err)
	}

	_, err = client.SendMessage(req, hermes.SaveOnFailure(false))

	var failure *hermes.SendError
	if errors.As(err, &failure) {
		fmt.Println(failure.Method, failure.StatusCode, failure.Kind, strings.TrimPrefix(failure.URL, partner.URL))
	}
	// Output: POST 404 status /ping?redacted
}
