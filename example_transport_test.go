package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/hermeshttp/hermes"
)

// Code that brings its own http.Client, such as somebody's SDK, needs only another Transport. Its own retries are best
// switched off.
func ExampleClient_Transport() {
	db, remove := openDatabase()
	defer remove()
	partner := startPartner(422)
	defer partner.Close()

	client, err := hermes.New(db)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Migrate(context.Background()); err != nil {
		log.Fatal(err)
	}

	sdk := &http.Client{Transport: client.Transport(hermes.Metadata(map[string]string{"from": "sdk"}))}
	resp, err := sdk.Post(partner.URL, "application/json", strings.NewReader(`{}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()

	saved, err := client.Monitor().Count(context.Background(), hermes.Filter{Metadata: map[string]string{"from": "sdk"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the SDK sees", resp.StatusCode, "and the table has", saved)
	// Output: the SDK sees 422 and the table has 1
}
