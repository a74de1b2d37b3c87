package migrate

import (
	"context"
	"database/sql"
	"time"

	"github.com/gatewayz/aside"
)

// A Session is a user who has signed in.
type Session struct {
	User  string
	Roles []string
}

// Sessions are the sessions of a site, by token.
type Sessions struct {
	cached *aside.Loader[string, Session]
	save   func(ctx context.Context, token string, s Session) error
	remove func(ctx context.Context, token string) error
}

// NewSessions caches what find returns, which is sql.ErrNoRows for a token that nobody has.
func NewSessions(c *aside.Cache, find func(ctx context.Context, token string) (Session, error), save func(ctx context.Context, token string, s Session) error, remove func(ctx context.Context, token string) error) *Sessions {
	p := aside.Policy{Name: "sessions", Category: "sessions", TTL: 5 * time.Minute, NegativeTTL: 10 * time.Second, NotFound: []error{sql.ErrNoRows}}
	return &Sessions{aside.NewLoader(c, p, find), save, remove}
}

// Find returns the session of a token, or sql.ErrNoRows.
func (s *Sessions) Find(ctx context.Context, token string) (Session, error) {
	return s.cached.Get(ctx, token)
}

// Save stores a session.
func (s *Sessions) Save(ctx context.Context, token string, session Session) error {
	if err := s.save(ctx, token, session); err != nil {
		return err
	}
	return s.cached.Set(ctx, token, session)
}

// End removes a session.
func (s *Sessions) End(ctx context.Context, token string) error {
	if err := s.remove(ctx, token); err != nil {
		return err
	}
	_, err := s.cached.Invalidate(ctx, token)
	return err
}
