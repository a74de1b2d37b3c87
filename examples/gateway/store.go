package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// schema is the schema of a chat front end. The indexes serve the queries of queries.go. The rankings read all events, as in any backend without
// precomputed sums.
const schema = `
CREATE TABLE IF NOT EXISTS users (
	id          INTEGER PRIMARY KEY,
	key_hash    BLOB NOT NULL UNIQUE, -- SHA-256 of the API key; the key itself is kept nowhere
	name        TEXT NOT NULL,
	email       TEXT NOT NULL,
	plan        TEXT NOT NULL,
	bio         TEXT NOT NULL,
	preferences TEXT NOT NULL,        -- JSON
	created_at  INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ledger (
	id         INTEGER PRIMARY KEY,
	user_id    INTEGER NOT NULL,
	credits    INTEGER NOT NULL,      -- bought > 0, spent < 0, in millionths
	created_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS ledger_user ON ledger (user_id);
CREATE TABLE IF NOT EXISTS sessions (
	id         INTEGER PRIMARY KEY,
	user_id    INTEGER NOT NULL,
	title      TEXT NOT NULL,
	model      TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id, updated_at);
CREATE TABLE IF NOT EXISTS messages (
	id         INTEGER PRIMARY KEY,
	session_id INTEGER NOT NULL,
	role       TEXT NOT NULL,
	content    TEXT NOT NULL,
	tokens     INTEGER NOT NULL,
	created_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_session ON messages (session_id);
CREATE TABLE IF NOT EXISTS events (
	id         INTEGER PRIMARY KEY,
	user_id    INTEGER NOT NULL,
	app        TEXT NOT NULL,
	model      TEXT NOT NULL,
	tokens     INTEGER NOT NULL,
	cost       INTEGER NOT NULL,      -- in millionths
	created_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_user ON events (user_id, created_at);`

// store is the database of the backend: a SQLite file, through database/sql.
type store struct {
	db    *sql.DB
	calls *calls

	// users has the user ids by the hash of the API key. It is read once, when the store opens, because the example has no sign-up. The cache is
	// never asked whether an API key is valid, since a revoked key must fail at once.
	users map[[sha256.Size]byte]int64
}

// openStore opens the database file, and fills a new database.
func openStore(ctx context.Context, file string, size fillSize, counter *calls, log *slog.Logger) (_ *store, err error) {
	// With WAL, readers do not wait while a message is written.
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(5000)", "temp_store(MEMORY)",
	}}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	st := &store{db: db, calls: counter}
	defer func() {
		if err != nil {
			_ = db.Close() // the first error is returned
		}
	}()
	conns := max(4, 2*runtime.GOMAXPROCS(0))
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	var filled bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM users)`).Scan(&filled); err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	if !filled {
		start := time.Now()
		log.Info("filling the database", "file", file, "users", size.users)
		if err := fill(ctx, db, size); err != nil {
			return nil, fmt.Errorf("database %s: %w", file, err)
		}
		log.Info("the database is filled", "took", time.Since(start).Round(time.Millisecond))
	}
	if err := st.readUsers(ctx); err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	return st, nil
}

func (st *store) close() error { return st.db.Close() }

func (st *store) readUsers(ctx context.Context) error {
	rows, err := st.db.QueryContext(ctx, `SELECT id, key_hash FROM users`)
	if err != nil {
		return err
	}
	defer rows.Close()
	st.users = make(map[[sha256.Size]byte]int64)
	for rows.Next() {
		var id int64
		var hash []byte
		if err := rows.Scan(&id, &hash); err != nil {
			return err
		}
		if len(hash) != sha256.Size {
			return fmt.Errorf("user %d: a key hash of %d bytes", id, len(hash))
		}
		st.users[[sha256.Size]byte(hash)] = id
	}
	return rows.Err()
}

// user returns the id of the user with an API key.
func (st *store) user(apiKey string) (id int64, ok bool) {
	id, ok = st.users[sha256.Sum256([]byte(apiKey))]
	return id, ok
}

// errNoRow means that the row does not exist or belongs to another user. The error does not distinguish the two on purpose.
var errNoRow = errors.New("no such row")

// collect runs one query, counts it for the op, and scans its rows.
func collect[T any](ctx context.Context, st *store, o op, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	st.calls.add(o)
	rows, err := st.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []T{} // encodes as [] and not as null
	for rows.Next() {
		var item T
		if err := scan(rows, &item); err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, rows.Err()
}

// one is collect for a query of a single row.
func one[T any](ctx context.Context, st *store, o op, scan func(*sql.Rows, *T) error, query string, args ...any) (item T, err error) {
	list, err := collect(ctx, st, o, scan, query, args...)
	if err != nil {
		return item, err
	}
	if len(list) == 0 {
		return item, errNoRow
	}
	return list[0], nil
}
