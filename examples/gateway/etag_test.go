package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/asidetest"
)

// An asked is a request that an upstream has got, and its answer.
type asked struct {
	gateway, known string // the ETag in If-None-Match
	status         int
	bytes          int
}

// direct answers the requests to upstreams without a network, so that time can be fake, and notes them.
type direct struct {
	upstreams map[string]*upstream // by host
	mu        sync.Mutex
	asked     []asked // guarded by mu
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	up := d.upstreams[r.URL.Host]
	w := httptest.NewRecorder()
	up.http.Handler.ServeHTTP(w, r)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, asked{up.gateway, r.Header.Get("If-None-Match"), w.Code, w.Body.Len()})
	return w.Result(), nil
}

// since returns what was asked since the last call.
func (d *direct) since() []asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.asked
	d.asked = nil
	return list
}

// withETags runs a test with a cache of compressed times in memory, an hour taking a second.
func withETags(t *testing.T, test func(t *testing.T, b *backend, c *aside.Cache, keys *policySet, d *direct)) {
	synctest.Test(t, func(t *testing.T) {
		cat, err := parseCatalogue([]byte(tinyCatalogue))
		require.NoError(t, err)
		b, d := &backend{catalogue: cat, upstreams: &upstreams{}}, &direct{upstreams: make(map[string]*upstream)}
		for _, gateway := range cat.gateways {
			up, err := newUpstream(gateway, cat.models[gateway], 0)
			require.NoError(t, err)
			up.url = "http://" + gateway
			b.upstreams.servers = append(b.upstreams.servers, up)
			d.upstreams[gateway] = up
		}
		b.models = newModelSource(b.upstreams, cat, &b.calls, slog.New(slog.DiscardHandler))
		b.models.client = &http.Client{Transport: d}
		keys := newPolicies().compressed(3600)
		test(t, b, asidetest.New(t, aside.Options{Policies: keys.list()}), keys, d)
	})
}

// staleFor is between the end of the TTL and that of Stale.
const staleFor = 3 * time.Second / 2

func TestACatalogueThatIsNotModifiedIsNotTransferred(t *testing.T) {
	withETags(t, func(t *testing.T, b *backend, c *aside.Cache, keys *policySet, d *direct) {
		look := func() aside.Result[asidehttp.Body] {
			r, err := aside.Lookup(t.Context(), c, keys.modelsKey("maple"), func(ctx context.Context) (asidehttp.Body, error) {
				return loadVersion(ctx, catalogueOf(b.models, "maple"))
			})
			require.NoError(t, err)
			asidetest.Settled(t, c) // the refresh has ended
			return r
		}
		first := look()
		etag := d.upstreams["maple"].carried.Load().list.etag
		require.Equal(t, etag, first.ETag)
		transferred := d.since()
		require.Len(t, transferred, 1)
		require.Empty(t, transferred[0].known)
		require.Equal(t, http.StatusOK, transferred[0].status)

		time.Sleep(staleFor)
		require.Equal(t, aside.StatusStale, look().Status)
		require.Equal(t, []asked{{"maple", etag, http.StatusNotModified, 0}}, d.since())
		again := look()
		require.Equal(t, aside.ReasonFresh, again.Reason)
		require.Equal(t, first.Value, again.Value)
		require.Equal(t, etag, again.ETag)
		require.Equal(t, keys.modelsGateway.TTL, again.TTL)
		require.EqualValues(t, 1, c.Metrics().Labels["models"].NotModified)
		require.Empty(t, d.since())

		require.NoError(t, d.upstreams["maple"].carry(b.catalogue.models["maple"][:1]))
		time.Sleep(staleFor)
		look()
		changed := d.since()
		require.Len(t, changed, 1)
		require.Equal(t, etag, changed[0].known)
		require.Equal(t, http.StatusOK, changed[0].status)
		now := look()
		require.Equal(t, aside.ReasonFresh, now.Reason)
		require.NotEqual(t, first.Value, now.Value)
		require.NotEqual(t, etag, now.ETag)
		require.EqualValues(t, 1, c.Metrics().Labels["models"].NotModified)

		_, err := c.Invalidate(t.Context(), keys.modelsKey("maple"))
		require.NoError(t, err)
		look()
		require.Empty(t, d.since()[0].known, "what was invalidated is transferred, whatever its ETag")
	})
}

// The catalogue of all gateways is joined anew only if a part has changed.
func TestTheJoinedCatalogueHasAnETagToo(t *testing.T) {
	withETags(t, func(t *testing.T, b *backend, c *aside.Cache, keys *policySet, d *direct) {
		look := func() aside.Result[asidehttp.Body] {
			r, err := aside.Lookup(t.Context(), c, keys.modelsKey("all"), func(ctx context.Context) (asidehttp.Body, error) {
				return loadVersion(ctx, catalogueOf(b.models, "all"))
			})
			require.NoError(t, err)
			synctest.Wait()
			return r
		}
		unmodified := func() uint64 { return c.Metrics().Labels["models"].NotModified }
		first := look()
		require.NotEmpty(t, first.ETag)
		time.Sleep(staleFor)
		look()
		require.EqualValues(t, 1, unmodified())
		require.Equal(t, aside.ReasonFresh, look().Reason)

		require.NoError(t, d.upstreams["oak"].carry([]model{}))
		time.Sleep(staleFor)
		look()
		second := look()
		require.EqualValues(t, 1, unmodified())
		require.NotContains(t, string(second.Value), "oak:1")
		require.NotEqual(t, first.ETag, second.ETag)

		// A catalogue without a gateway is not that in which the gateway has no models, and is kept for a minute at most, however often it is not modified.
		oak := d.upstreams["oak"].http
		works := oak.Handler
		oak.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		time.Sleep(staleFor)
		look()
		third := look()
		require.Contains(t, string(third.Value), `"missing":["oak"]`)
		require.Equal(t, partialTTL, third.TTL)
		require.EqualValues(t, 1, unmodified())
		time.Sleep(partialTTL + staleFor/3)
		look()
		require.EqualValues(t, 2, unmodified())
		require.Equal(t, partialTTL, look().TTL)
		oak.Handler = works
		time.Sleep(partialTTL + staleFor/3)
		look()
		require.Equal(t, second.Value, look().Value)
		require.Equal(t, second.ETag, look().ETag)
		require.Equal(t, keys.modelsAll.TTL, look().TTL)
	})
}

func TestAWarmingKeepsWhatIsNotModified(t *testing.T) {
	withETags(t, func(t *testing.T, b *backend, c *aside.Cache, keys *policySet, d *direct) {
		catalogues := newWarmings(b, c, keys)[0]
		run := func() aside.Warmed {
			warmed, err := catalogues.run(t.Context(), warmingHooks{loaded: func(_ string, err error) { require.NoError(t, err) }})
			require.NoError(t, err)
			warmed.Took = 0
			return warmed
		}
		all := aside.Warmed{Seen: 4, Loaded: 4}
		require.Equal(t, all, run())
		d.since()
		time.Sleep(staleFor)
		require.Equal(t, all, run())
		known := 0
		for _, a := range d.since() {
			if a.known != "" {
				known++
				require.Equal(t, http.StatusNotModified, a.status)
			}
		}
		require.Equal(t, 3, known)
		require.EqualValues(t, 4, c.Metrics().Labels["models"].NotModified)
		require.Equal(t, aside.Warmed{Seen: 4, Fresh: 4}, run())
	})
}

// Upstreams that are not as they should be.
func TestETagsOfOtherUpstreams(t *testing.T) {
	withETags(t, func(t *testing.T, b *backend, _ *aside.Cache, _ *policySet, d *direct) {
		oak := d.upstreams["oak"]
		answer := func(etag string, status int) {
			oak.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ETag", etag)
				w.WriteHeader(status)
				_, _ = w.Write([]byte(`{"data":[]}`))
			})
		}
		answer("", http.StatusOK)
		v, err := b.models.gateway(t.Context(), "oak", "")
		require.NoError(t, err)
		require.Empty(t, v.etag)
		v, _, err = b.models.all(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, v.etag, "one part has none")
		require.NotEmpty(t, v.body)
		answer(`"`+string(make([]byte, 2<<10))+`"`, http.StatusOK)
		v, err = b.models.gateway(t.Context(), "oak", "")
		require.NoError(t, err)
		require.Empty(t, v.etag, "it is too long")
		answer(`"1"`, http.StatusNotModified)
		_, err = b.models.gateway(t.Context(), "oak", "")
		require.ErrorIs(t, err, errUpstream, "nobody has asked whether it is modified")
	})
}
