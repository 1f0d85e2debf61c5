package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/hermeshttp/hermes"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
)

func main() {
	db, err := gorm.Open(sqlite.Open("hermes.db?_journal_mode=WAL&_synchronous=FULL&_txlock=immediate"))
	check(err)
	client, err := hermes.New(db)
	check(err)
	check(client.Migrate(context.Background()))

	req, err := http.NewRequest("POST", os.Args[1], strings.NewReader(`{"id": 1}`))
	check(err)
	resp, err := client.SendMessage(req) // in place of http.Client.Do
	check(err)                           // neither delivered nor saved
	log.Println(resp.Outcome, resp.StatusCode, resp.FailedMessageID)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
