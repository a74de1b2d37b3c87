package before

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

// A Session is a user who has signed in.
type Session struct {
	User  string
	Roles []string
}

// Sessions are the sessions of a site, by token.
type Sessions struct {
	cached *cache.Cache
	find   func(ctx context.Context, token string) (Session, error)
	save   func(ctx context.Context, token string, s Session) error
	remove func(ctx context.Context, token string) error
}

// stored is a session, or that there is none.
type stored struct {
	Session Session
	None    bool
}

// NewSessions caches what find returns, which is sql.ErrNoRows for a token that nobody has.
func NewSessions(client *redis.Client, find func(ctx context.Context, token string) (Session, error), save func(ctx context.Context, token string, s Session) error, remove func(ctx context.Context, token string) error) *Sessions {
	c := cache.New(&cache.Options{Redis: client, LocalCache: cache.NewTinyLFU(10_000, 10*time.Second)})
	return &Sessions{cached: c, find: find, save: save, remove: remove}
}

func sessionKey(token string) string { return "sessions:" + token }

// Find returns the session of a token, or sql.ErrNoRows.
func (s *Sessions) Find(ctx context.Context, token string) (Session, error) {
	var v stored
	item := &cache.Item{Ctx: ctx, Key: sessionKey(token), Value: &v, TTL: 5 * time.Minute}
	item.Do = func(item *cache.Item) (any, error) {
		session, err := s.find(item.Ctx, token)
		if errors.Is(err, sql.ErrNoRows) {
			item.TTL = 10 * time.Second
			return stored{None: true}, nil
		}
		return stored{Session: session}, err
	}
	if err := s.cached.Once(item); err != nil {
		if ctx.Err() != nil {
			return Session{}, ctx.Err()
		}
		slog.Warn("sessions: the cache failed", "error", err) // the database, or the caller whose call was shared has left
		return s.find(ctx, token)
	}
	if v.None {
		return Session{}, sql.ErrNoRows
	}
	return v.Session, nil
}

// Save stores a session.
func (s *Sessions) Save(ctx context.Context, token string, session Session) error {
	if err := s.save(ctx, token, session); err != nil {
		return err
	}
	return s.cached.Set(&cache.Item{Ctx: ctx, Key: sessionKey(token), Value: stored{Session: session}, TTL: 5 * time.Minute})
}

// End removes a session. Other processes serve it from their memory for up to 11 s.
func (s *Sessions) End(ctx context.Context, token string) error {
	if err := s.remove(ctx, token); err != nil {
		return err
	}
	return s.cached.Delete(ctx, sessionKey(token))
}
