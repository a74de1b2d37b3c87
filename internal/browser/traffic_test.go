package browser

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// busy are the policies of a cache that is busy. Their times are short, so that values expire while somebody looks.
var busy = struct{ models, sessions, profiles, credits, rankings, search aside.Policy }{
	models:   aside.Policy{Name: "models", Category: "models", TTL: 2 * time.Minute, Stale: time.Minute},
	sessions: aside.Policy{Name: "sessions", Category: "sessions", TTL: 45 * time.Second},
	profiles: aside.Policy{Name: "profiles", Category: "user", Label: "user_profile", TTL: time.Minute},
	credits:  aside.Policy{Name: "credits", Category: "user", Label: "user_credits", TTL: 10 * time.Second},
	rankings: aside.Policy{Name: "rankings", Category: "rankings", TTL: 4 * time.Minute},
	search:   aside.Policy{Name: "search", Category: "search", TTL: 30 * time.Second},
}

// traffic calls a cache until ctx ends, as the backend of a model gateway does, with some hundred calls a second.
func traffic(ctx context.Context, c *aside.Cache) {
	var callers sync.WaitGroup
	for _, of := range []struct {
		policy     aside.Policy
		ids        int
		pause, min time.Duration
		fails      float64
		size       int
	}{
		{busy.models, 24, 6 * time.Millisecond, 120 * time.Millisecond, 0, 6000},
		{busy.sessions, 400, 9 * time.Millisecond, 12 * time.Millisecond, 0.002, 900},
		{busy.profiles, 300, 14 * time.Millisecond, 4 * time.Millisecond, 0, 300},
		{busy.credits, 120, 25 * time.Millisecond, 6 * time.Millisecond, 0.01, 40},
		{busy.rankings, 6, 60 * time.Millisecond, 300 * time.Millisecond, 0, 2400},
		{busy.search, 900, 35 * time.Millisecond, 45 * time.Millisecond, 0, 1500},
	} {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(of.ids)))
			zipf := rand.NewZipf(random, 1.3, 4, uint64(of.ids-1))
			for ctx.Err() == nil {
				id := zipf.Uint64()
				late, fails := time.Duration(random.ExpFloat64()*float64(of.min)), random.Float64() < of.fails
				callers.Go(func() {
					_, _ = aside.GetOrLoad(ctx, c, of.policy.Key(of.policy.Name, fmt.Sprintf("%06x", id*7919)), func(ctx context.Context) (map[string]string, error) {
						select {
						case <-time.After(of.min + late):
						case <-ctx.Done():
							return nil, ctx.Err()
						}
						if fails {
							return nil, errors.New("the database has closed the connection")
						}
						return map[string]string{"name": fmt.Sprint("value ", id), "text": strings.Repeat("lorem ipsum ", of.size/12)}, nil
					}, aside.WithTags(fmt.Sprint("supplier ", id%7), "region eu"))
				})
				time.Sleep(time.Duration(float64(of.pause) * (0.4 + 1.2*random.Float64())))
			}
		})
	}
	callers.Go(func() { // somebody invalidates now and then
		for n := 0; ctx.Err() == nil; n++ {
			who := aside.WithActor(ctx, []string{"deploy", "billing", "on call"}[n%3])
			switch n % 4 {
			case 0:
				_, _ = c.Invalidate(who, busy.models.Key("models", fmt.Sprintf("%06x", n%9*7919)))
			case 1:
				_, _ = c.InvalidateTags(who, fmt.Sprint("supplier ", n%7))
			case 2:
				_, _ = c.InvalidatePattern(who, busy.sessions.Match("sessions", fmt.Sprintf("%06x", n%11*7919), aside.Wildcard))
			case 3:
				_, _ = c.InvalidateCategory(who, "search")
			}
			select {
			case <-time.After(23 * time.Second):
			case <-ctx.Done():
			}
		}
	})
	callers.Wait()
}
