package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// A Product is a row of the table products.
type Product struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	Supplier int64  `json:"supplier"`
	Cents    int64  `json:"cents"`
	Stock    int64  `json:"stock"`
}

// A Page is a part of the list of a supplier's products. It is an id of the cache: two pages are the same if all fields are.
type Page struct{ Supplier, Limit, Offset int64 }

// A Profile is what a customer sees of their account.
type Profile struct {
	Name   string `json:"name"`
	Orders int64  `json:"orders"`
	Cents  int64  `json:"cents"`
}

var errSoldOut = errors.New("sold out")

// A store is the database. It knows nothing of the cache.
type store struct{ db *sql.DB }

func openStore(ctx context.Context) (*store, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each connection would have a database of its own
	_, err = db.ExecContext(ctx, `
		CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, supplier INTEGER, cents INTEGER, stock INTEGER);
		CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT);
		CREATE TABLE orders (customer TEXT, product INTEGER, cents INTEGER);
		INSERT INTO customers VALUES ('ada@example.com', 'Ada'), ('bob@example.com', 'Bob');
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
			INSERT INTO products SELECT i, 'product ' || i, i % 10, 100 * i, 3 FROM n`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db}, nil
}

// products loads many products with one statement. An id that does not exist is missing in the map.
func (s *store) products(ctx context.Context, ids []int64) (map[int64]Product, error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	rows, err := s.db.QueryContext(ctx, `SELECT id, name, supplier, cents, stock FROM products WHERE id IN (?`+strings.Repeat(",?", len(ids)-1)+`)`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[int64]Product, len(ids))
	for rows.Next() {
		var p Product
		if err := rows.Scan(&p.ID, &p.Name, &p.Supplier, &p.Cents, &p.Stock); err != nil {
			return nil, err
		}
		found[p.ID] = p
	}
	return found, rows.Err()
}

// page loads the ids of a page, the cheapest product first.
func (s *store) page(ctx context.Context, p Page) ([]int64, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id FROM products WHERE supplier = ? ORDER BY cents, id LIMIT ? OFFSET ?`, p.Supplier, p.Limit, p.Offset)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := []int64{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// profile loads a profile. Its error for an unknown customer is sql.ErrNoRows, which the cache knows: see newShop.
func (s *store) profile(ctx context.Context, customer string) (p Profile, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT c.name, count(o.cents), coalesce(sum(o.cents), 0)
		FROM customers c LEFT JOIN orders o ON o.customer = c.id WHERE c.id = ? GROUP BY c.id`, customer).Scan(&p.Name, &p.Orders, &p.Cents)
	return p, err
}

// setPrice changes the price of a product, and returns the product.
func (s *store) setPrice(ctx context.Context, id, cents int64) (p Product, err error) {
	err = s.db.QueryRowContext(ctx, `UPDATE products SET cents = ? WHERE id = ? RETURNING id, name, supplier, cents, stock`, cents, id).
		Scan(&p.ID, &p.Name, &p.Supplier, &p.Cents, &p.Stock)
	return p, err
}

// order sells one of a product to a customer, in a transaction.
func (s *store) order(ctx context.Context, customer string, id int64) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	var cents int64
	err = tx.QueryRowContext(ctx, `UPDATE products SET stock = stock - 1 WHERE id = ? AND stock > 0 RETURNING cents`, id).Scan(&cents)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("product %d: %w", id, errSoldOut)
	} else if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?, ?)`, customer, id, cents); err != nil {
		return err
	}
	return tx.Commit()
}
