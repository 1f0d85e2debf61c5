// Outbox places orders and tells a warehouse of them: an order and its message are committed in one transaction, or
// neither is. A pass sends what is committed.
//
//	go run ./examples/outbox -db postgres://user@localhost/shop -url https://warehouse.example/orders book lamp
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/hermeshttp/hermes"
)

var errSoldOut = errors.New("sold out")

type product struct {
	Name  string `gorm:"primaryKey"`
	Stock int
}

type order struct {
	ID      int    `json:"id"`
	Product string `json:"product"`
}

func main() {
	dsn := flag.String("db", "file:shop.db?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate",
		"DSN of PostgreSQL, as a URL, or SQLite")
	warehouse := flag.String("url", "http://localhost:8080/orders", "where to send orders")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dsn, *warehouse, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dsn, warehouse string, products []string) (err error) {
	dialector := sqlite.Open(dsn)
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		dialector = postgres.Open(dsn)
	}
	db, err := gorm.Open(dialector)
	if err != nil {
		return err
	}
	client, err := hermes.New(db) // the same database: a transaction cannot span two
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, client.Shutdown(ctx))
	}()
	if err := client.Migrate(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, db); err != nil {
		return err
	}
	s := &shop{db, client, warehouse}
	for _, name := range products {
		if err := s.place(ctx, name); errors.Is(err, errSoldOut) {
			log.Printf("%s: %v", name, err)
		} else if err != nil {
			return err
		}
	}
	// A real shop has a job for this, see examples/cronjob.
	summary, err := client.RetryAll(ctx, hermes.RetryOptions{})
	log.Printf("delivered %d, failed %d, invalid %d", summary.Delivered, summary.Failed, summary.Invalid)
	return err
}

type shop struct {
	db        *gorm.DB
	client    *hermes.Client
	warehouse string
}

// place makes an order and the message about it. Nothing is sent here: the warehouse cannot hear of an order that is
// rolled back later, and a warehouse that is down keeps nobody from ordering.
func (s *shop) place(ctx context.Context, name string) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		o := &order{Product: name}
		if err := tx.Create(o).Error; err != nil {
			return err
		}
		body, err := json.Marshal(o)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.warehouse, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		// The zero time: due as soon as it is committed.
		if _, err := s.client.Enqueue(ctx, tx, req, time.Time{}, hermes.IdempotencyKey(fmt.Sprintf("order-%d", o.ID))); err != nil {
			return err
		}
		taken := tx.Model(&product{}).Where("name = ? AND stock > 0", name).Update("stock", gorm.Expr("stock - 1"))
		if taken.Error == nil && taken.RowsAffected == 0 {
			return errSoldOut // rolls back the order and its message
		}
		return taken.Error
	})
}

// migrate makes the shop's own tables, with something to sell.
func migrate(ctx context.Context, db *gorm.DB) error {
	if err := db.WithContext(ctx).AutoMigrate(&product{}, &order{}); err != nil {
		return err
	}
	return db.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&[]product{{"book", 100}, {"lamp", 0}}).Error
}
