package migrate

import (
	"context"
	"time"

	"github.com/gatewayz/aside"
)

// A Setting is named within a tenant.
type Setting struct{ Tenant, Name string }

// Settings are the settings of all tenants.
type Settings struct {
	cached *aside.Loader[Setting, string]
	cache  *aside.Cache
}

var settings = aside.Policy{Name: "settings", Category: "settings", TTL: 30 * time.Second}

// NewSettings caches what fetch returns.
func NewSettings(c *aside.Cache, fetch func(ctx context.Context, s Setting) (string, error)) *Settings {
	key := func(p *aside.Policy, s Setting) aside.Key { return p.Key(s.Tenant, s.Name) }
	return &Settings{aside.NewLoaderBy(c, settings, key, fetch), c}
}

// Get returns a setting.
func (s *Settings) Get(ctx context.Context, setting Setting) (string, error) {
	return s.cached.Get(ctx, setting)
}

// TenantChanged removes all settings of a tenant.
func (s *Settings) TenantChanged(ctx context.Context, tenant string) error {
	_, err := s.cache.InvalidatePattern(ctx, settings.Match(tenant, aside.Wildcard))
	return err
}
