package before

import (
	"context"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// A Setting is named within a tenant.
type Setting struct{ Tenant, Name string }

type heldSetting struct {
	value string
	until time.Time
}

// Settings are the settings of all tenants.
type Settings struct {
	fetch  func(ctx context.Context, s Setting) (string, error)
	flight singleflight.Group

	mu      sync.Mutex
	held    map[Setting]heldSetting
	changes int // so that a fetch that began before a change is not kept
}

const (
	settingTTL   = 30 * time.Second
	mostSettings = 10_000
)

// NewSettings caches what fetch returns.
func NewSettings(fetch func(ctx context.Context, s Setting) (string, error)) *Settings {
	return &Settings{fetch: fetch, held: map[Setting]heldSetting{}}
}

// Get returns a setting.
func (s *Settings) Get(ctx context.Context, setting Setting) (string, error) {
	s.mu.Lock()
	h, changes := s.held[setting], s.changes
	s.mu.Unlock()
	if time.Now().Before(h.until) {
		return h.value, nil
	}
	name := strconv.Quote(setting.Tenant) + strconv.Quote(setting.Name) + strconv.Itoa(changes)
	answer := s.flight.DoChan(name, func() (any, error) {
		v, err := s.fetch(context.WithoutCancel(ctx), setting)
		if err == nil {
			s.keep(setting, v, changes)
		}
		return v, err
	})
	select {
	case r := <-answer:
		return r.Val.(string), r.Err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (s *Settings) keep(setting Setting, v string, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		return
	}
	for other := range s.held {
		if len(s.held) < mostSettings {
			break
		}
		delete(s.held, other)
	}
	s.held[setting] = heldSetting{v, time.Now().Add(settingTTL)}
}

// TenantChanged removes all settings of a tenant, in this process.
func (s *Settings) TenantChanged(_ context.Context, tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	for setting := range s.held {
		if setting.Tenant == tenant {
			delete(s.held, setting)
		}
	}
	return nil
}
