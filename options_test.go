package aside_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// badOptions are options that New must refuse, by the field that the error must name, each with its remedy.
func badOptions() map[string][]struct {
	options aside.Options
	remedy  string
} {
	type bad = struct {
		options aside.Options
		remedy  string
	}
	redis := func(remedy string, change func(*rueidis.ClientOption)) bad {
		return bad{asidetest.RedisAt(change), remedy}
	}
	memory := func(change func(*rueidis.ClientOption)) bad {
		var o aside.Options
		change(&o.Redis)
		return bad{o, "name the server as host:port"}
	}
	const replica, tracking, positive = "leave it unset", "leave it unset", "set a positive duration"
	all := map[string][]bad{
		"Options.SlowLoad":   {{aside.Options{SlowLoad: -1}, "0 for off"}},
		"Options.HotKeys":    {{aside.Options{HotKeys: -1}, "0 for none"}, {aside.Options{HotKeys: 10_001}, "at most 10000"}},
		"Options.MaxEntries": {{aside.Options{MaxEntries: -1}, "set a positive number"}},
		"Options.MaxBytes":   {{aside.Options{MaxBytes: -1}, "set a positive number of bytes"}},
		"Options.MaxValueBytes": {
			{aside.Options{MaxValueBytes: -1}, "set 1 to 1073741824"},
			{aside.Options{MaxValueBytes: 1<<30 + 1}, "set 1 to 1073741824"},
		},
		"Options.JSON": {
			{aside.Options{JSON: aside.JSONFunctions{Marshal: json.Marshal}}, "set both"},
			{aside.Options{JSON: aside.JSONFunctions{Unmarshal: json.Unmarshal}}, "set both"},
			{aside.Options{JSON: aside.JSONFunctions{Marshal: json.Marshal, Unmarshal: func([]byte, any) error { return nil }}}, "follow the rules of encoding/json"},
		},
		"Options.OpTimeout":   {{aside.Options{OpTimeout: -1}, positive}},
		"Options.LoadTimeout": {{aside.Options{LoadTimeout: -time.Second}, positive}},
		"Options.LeaseTTL": {
			{aside.Options{LeaseTTL: -time.Second}, "at least 100ms"},
			{aside.Options{LeaseTTL: 100*time.Millisecond - 1}, "at least 100ms"},
		},
		"Options.Secret": {
			{aside.Options{Secret: aside.NewSecret("x")}, "at least 16"},
			{aside.Options{Secret: aside.NewSecret("fifteen bytes!!")}, "at least 16"},
		},
		"Options.Policies[0]":         {{aside.Options{Policies: []aside.Policy{{TTL: time.Hour}}}, "set the first part"}},
		`Options.TTLs["UserProfile"]`: {{aside.Options{TTLs: map[string]time.Duration{"UserProfile": 0}}, "at least 1ms"}},

		"Options.Redis.ReplicaOnly":    {redis(replica, func(r *rueidis.ClientOption) { r.ReplicaOnly = true })},
		"Options.Redis.SendToReplicas": {redis(replica, func(r *rueidis.ClientOption) { r.SendToReplicas = func(rueidis.Completed) bool { return true } })},
		"Options.Redis.ReplicaSelector": {redis(replica, func(r *rueidis.ClientOption) {
			//lint:ignore SA1019 deprecated, and refused as long as it works
			r.ReplicaSelector = func(uint16, []rueidis.NodeInfo) int { return 0 }
		})},
		"Options.Redis.ReadNodeSelector": {redis(replica, func(r *rueidis.ClientOption) {
			r.ReadNodeSelector = func(uint16, []rueidis.NodeInfo) int { return 0 }
		})},
		"Options.Redis.Standalone.ReplicaAddress": {redis(replica, func(r *rueidis.ClientOption) { r.Standalone.ReplicaAddress = []string{"127.0.0.1:6380"} })},
		"Options.Redis.NewCacheStoreFn": {redis(tracking, func(r *rueidis.ClientOption) {
			r.NewCacheStoreFn = func(rueidis.CacheStoreOption) rueidis.CacheStore { return nil }
		})},
		"Options.Redis.ClientTrackingOptions": {redis(tracking, func(r *rueidis.ClientOption) { r.ClientTrackingOptions = []string{"BCAST"} })},
		"Options.Redis.OnInvalidations":       {redis(tracking, func(r *rueidis.ClientOption) { r.OnInvalidations = func([]rueidis.RedisMessage) {} })},
		"Options.Redis.DisableAutoPipelining": {redis("leave it unset", func(r *rueidis.ClientOption) { r.DisableAutoPipelining = true })},
		"Options.Redis.BlockingPipeline": {
			redis("leave it unset", func(r *rueidis.ClientOption) { r.BlockingPipeline = 10 }),
			redis("leave it unset", func(r *rueidis.ClientOption) { r.BlockingPipeline = -1 }),
		},
		"Options.Redis.DisableCache":              {redis(tracking, func(r *rueidis.ClientOption) { r.DisableCache = true })},
		"Options.Redis.ClientNoTouch":             {redis("leave it unset", func(r *rueidis.ClientOption) { r.ClientNoTouch = true })},
		"Options.Redis.Standalone.EnableRedirect": {redis("leave it unset", func(r *rueidis.ClientOption) { r.Standalone.EnableRedirect = true })},
		"Options.Redis.Dialer.Deadline":           {redis("leave it unset", func(r *rueidis.ClientOption) { r.Dialer.Deadline = time.Now().Add(time.Hour) })},
		"Options.Redis.Sentinel.Dialer.Deadline":  {redis("leave it unset", func(r *rueidis.ClientOption) { r.Sentinel.Dialer.Deadline = time.Now().Add(time.Hour) })},
		"Options.Redis.ConnLifetime": {
			redis("at least 1s", func(r *rueidis.ClientOption) { r.ConnLifetime = time.Second - 1 }),
			redis("at least 1s", func(r *rueidis.ClientOption) { r.ConnLifetime = -time.Hour }),
		},
		"Options.Redis.MaxFlushDelay": {
			redis("at most 5ms", func(r *rueidis.ClientOption) { r.MaxFlushDelay = 5*time.Millisecond + 1 }),
			redis("at most 5ms", func(r *rueidis.ClientOption) { r.MaxFlushDelay = -1 }),
		},
		"Options.Redis.RingScaleEachConn":   {redis("at most 16", func(r *rueidis.ClientOption) { r.RingScaleEachConn = 62 })},
		"Options.Redis.ReadBufferEachConn":  {redis("at most 67108864", func(r *rueidis.ClientOption) { r.ReadBufferEachConn = math.MaxInt })},
		"Options.Redis.WriteBufferEachConn": {redis("at most 67108864", func(r *rueidis.ClientOption) { r.WriteBufferEachConn = math.MaxInt })},
		"Options.Redis.ClientName": {
			redis("without spaces", func(r *rueidis.ClientOption) { r.ClientName = "my gateway" }),
			redis("without spaces", func(r *rueidis.ClientOption) { r.ClientName = "gateway\n" }),
			redis("without spaces", func(r *rueidis.ClientOption) { r.ClientName = "überholt" }),
		},
		"Options.Redis.Sentinel.ClientName": {redis("without spaces", func(r *rueidis.ClientOption) { r.Sentinel.ClientName = "my gateway" })},
		"Options.Redis.PipelineMultiplex":   {redis("at most 8", func(r *rueidis.ClientOption) { r.PipelineMultiplex = rueidis.MaxPipelineMultiplex + 1 })},
		"Options.Redis.SelectDB":            {redis("from 0 up", func(r *rueidis.ClientOption) { r.SelectDB = -1 })},
		"Options.Redis.Dialer.KeepAlive": {
			redis("must be noticed within 3s", func(r *rueidis.ClientOption) { r.Dialer.KeepAlive = 2 * time.Second }),
			redis("must be noticed within 3s", func(r *rueidis.ClientOption) { r.Dialer.KeepAlive = -1 }),
			redis("must be noticed within 3s", func(r *rueidis.ClientOption) { r.ConnWriteTimeout = 2600 * time.Millisecond }),
		},
		"Options.Redis.ConnWriteTimeout": {redis(positive, func(r *rueidis.ClientOption) { r.ConnWriteTimeout = -1 })},
		"Options.Redis.Dialer.Timeout":   {redis(positive, func(r *rueidis.ClientOption) { r.Dialer.Timeout = -1 })},
		"Options.Redis.ClusterOption.ShardsRefreshInterval": {
			redis(positive, func(r *rueidis.ClientOption) { r.ClusterOption.ShardsRefreshInterval = -1 }),
		},
		"Options.Redis.Sentinel.TopologyRefreshInterval": {
			redis(positive, func(r *rueidis.ClientOption) { r.Sentinel.TopologyRefreshInterval = -1 }),
		},
		// Who names a part of a server means one, and must not get memory without a word.
		"Options.Redis.InitAddress": {
			memory(func(r *rueidis.ClientOption) { r.Password = asidetest.Canary }),
			memory(func(r *rueidis.ClientOption) { r.Username = asidetest.Canary }),
			memory(func(r *rueidis.ClientOption) { r.SelectDB = 3 }),
			memory(func(r *rueidis.ClientOption) { r.TLSConfig = &tls.Config{} }),
			memory(func(r *rueidis.ClientOption) { r.Sentinel.MasterSet = "primary" }),
			memory(func(r *rueidis.ClientOption) { r.DialCtxFn = asidetest.Nowhere }),
			memory(func(r *rueidis.ClientOption) { r.ClientName = "gateway" }),
			memory(func(r *rueidis.ClientOption) {
				r.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
					return rueidis.AuthCredentials{}, nil
				}
			}),
		},
	}
	for _, addr := range []string{
		"", "localhost", "localhost:", "localhost:0", "localhost:65536", "localhost:redis", "::1:6379", "[::1]", "[::1:6379",
		"redis://u:" + asidetest.Canary + "@localhost:6379", "u:" + asidetest.Canary + "@localhost:6379", asidetest.Canary + "@localhost:6379", "local host:6379", "localhost:6379/0",
	} {
		all["Options.Redis.InitAddress"] = append(all["Options.Redis.InitAddress"],
			redis("host:port", func(r *rueidis.ClientOption) { r.InitAddress = []string{"127.0.0.1:6379", addr} }))
	}
	all["Options.Redis.InitAddress"] = append(all["Options.Redis.InitAddress"],
		redis("host:port", func(r *rueidis.ClientOption) { r.InitAddress, r.DialCtxFn = []string{""}, asidetest.Nowhere }))
	return all
}

func TestEachWrongOptionIsRefusedByName(t *testing.T) {
	t.Parallel()
	for field, wrong := range badOptions() {
		for i, bad := range wrong {
			c, err := aside.New(bad.options)
			if err == nil {
				c.Close()
			}
			require.Nil(t, c, "%s, %d", field, i)
			asidetest.RequireCode(t, err, aside.CodeInvalidOption, "%s, %d", field, i)
			require.ErrorContains(t, err, field, i)
			require.ErrorContains(t, err, bad.remedy, "%s, %d", field, i)
			require.NotContains(t, err.Error(), asidetest.Canary, "%s, %d", field, i)
			require.Equal(t, 1, strings.Count(err.Error(), "Options."), "only what is wrong is named: %v", err)
		}
	}
}

func TestRightOptionsAtTheirLimitsAreTaken(t *testing.T) {
	t.Parallel()
	for _, o := range []aside.Options{
		{},
		{MaxEntries: 1, MaxBytes: 1, MaxValueBytes: 1, OpTimeout: 1, LoadTimeout: 1, LeaseTTL: 100 * time.Millisecond},
		{MaxEntries: math.MaxInt, MaxBytes: math.MaxInt64, MaxValueBytes: 1 << 30},
		{CompressFrom: -1, NegativeTTL: -1},
		{Secret: aside.NewSecret("sixteen bytes!!!")},
		{Secret: aside.NewSecret([]byte{})},
		asidetest.RedisAt(func(r *rueidis.ClientOption) {
			r.PipelineMultiplex = rueidis.MaxPipelineMultiplex
			r.DialCtxFn = asidetest.Nowhere
		}),
		asidetest.RedisAt(func(r *rueidis.ClientOption) {
			r.InitAddress, r.DialCtxFn = []string{"/run/redis.sock"}, asidetest.Nowhere // a dialer may give it a meaning
		}),
		asidetest.RedisAt(func(r *rueidis.ClientOption) {
			r.InitAddress = []string{"[::1]:1", ":1", "127.0.0.1:65535", "[fe80::1%lo]:1"}
			r.Dialer.Timeout = time.Millisecond
		}),
	} {
		o.Logger = asidetest.Quiet()
		c, err := aside.New(o)
		require.NoError(t, err, "%v", o)
		require.NoError(t, c.Close())
	}
}

func TestAllThatIsWrongIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	o := asidetest.RedisAt(func(r *rueidis.ClientOption) { r.ReplicaOnly, r.SelectDB = true, -1 })
	o.MaxEntries, o.MaxBytes, o.OpTimeout = -1, -1, -1
	o.Policies = []aside.Policy{{TTL: time.Hour}, {Category: "a:b", TTL: time.Hour}}
	o.TTLs = map[string]time.Duration{"nobody": time.Hour, "UserProfile": -1}
	_, err := aside.New(o)
	require.Error(t, err)
	for _, field := range []string{
		"Options.MaxEntries", "Options.MaxBytes", "Options.OpTimeout", "Options.Redis.ReplicaOnly", "Options.Redis.SelectDB",
		"Options.Policies[0]", "Options.Policies[1]", `"nobody"`, `Options.TTLs["UserProfile"]`,
	} {
		require.ErrorContains(t, err, field)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok)
	require.Len(t, joined.Unwrap(), 9)
	for _, one := range joined.Unwrap() {
		asidetest.RequireCode(t, one, aside.CodeInvalidOption)
	}
}

func TestTheZeroOptionsAreACacheInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := asidetest.NewCache(t, aside.Options{})
		require.Equal(t, aside.StateMemory, c.Health().State)
		v, err := aside.GetOrLoad(t.Context(), c, asidetest.Keyed.Key("x"), func(context.Context) (int, error) { return 7, nil })
		require.NoError(t, err)
		require.Equal(t, 7, v)
		v, err = aside.Get[int](t.Context(), c, asidetest.Keyed.Key("x"))
		require.NoError(t, err)
		require.Equal(t, 7, v)
		r, err := aside.Lookup(t.Context(), c, asidetest.Keyed.Key("none"), func(context.Context) (int, error) { return 0, aside.ErrNotFound })
		require.ErrorIs(t, err, aside.ErrNotFound)
		require.Equal(t, 30*time.Second, r.TTL, "the default of NegativeTTL")
	})
}

func TestTheNearestNegativeTTLCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ttl := func(o aside.Options, p aside.Policy) time.Duration {
			r, err := aside.Lookup(t.Context(), asidetest.NewCache(t, o), p.Key("none"), func(context.Context) (int, error) { return 0, aside.ErrNotFound })
			require.ErrorIs(t, err, aside.ErrNotFound)
			return r.TTL
		}
		own, never := asidetest.Keyed, asidetest.Keyed
		own.NegativeTTL, never.NegativeTTL = 2*time.Second, -1
		require.Equal(t, 9*time.Second, ttl(aside.Options{NegativeTTL: 9 * time.Second}, asidetest.Keyed))
		require.Equal(t, 2*time.Second, ttl(aside.Options{NegativeTTL: 9 * time.Second}, own))
		require.Zero(t, ttl(aside.Options{NegativeTTL: 9 * time.Second}, never))
		require.Zero(t, ttl(aside.Options{NegativeTTL: -1}, asidetest.Keyed))
		require.Equal(t, 2*time.Second, ttl(aside.Options{NegativeTTL: -1}, own))
	})
}

func TestTheCallersOptionsAreCopied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		secret := []byte("0123456789abcdef")
		o := aside.Options{
			Secret:   aside.NewSecret(secret),
			Policies: []aside.Policy{asidetest.Keyed},
			TTLs:     map[string]time.Duration{"keyed": time.Minute, "UserProfile": time.Minute},
		}
		c := asidetest.NewCache(t, o)
		before := c.HashID("id")
		clear(secret)
		o.Policies[0] = aside.Policy{}
		o.TTLs["keyed"], o.TTLs["UserProfile"], o.TTLs["late"] = time.Second, time.Second, time.Second
		require.Equal(t, before, c.HashID("id"))
		p := asidetest.Keyed
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &p))
		require.Equal(t, time.Minute, asidetest.TTLOf(t, c, &aside.TTL.UserProfile))
		late := aside.Policy{Name: "late", Category: "late", TTL: time.Hour}
		require.Equal(t, time.Hour, asidetest.TTLOf(t, c, &late), "one that registers itself now")
	})
}

// The dial is what shows whose address and TLS configuration the background connection has.
func TestTheCallersRedisOptionsAreCopied(t *testing.T) {
	t.Parallel()
	type dial struct{ addr, server string }
	dials, changed := make(chan dial), make(chan struct{})
	o := asidetest.RedisAt(func(r *rueidis.ClientOption) {
		r.InitAddress = []string{"first:1", "second:2"}
		r.ShuffleInit = true // done in place, by rueidis
		r.TLSConfig = &tls.Config{ServerName: "first"}
		r.DialCtxFn = func(ctx context.Context, addr string, _ *net.Dialer, conf *tls.Config) (net.Conn, error) {
			<-changed
			select {
			case dials <- dial{addr, conf.ServerName}:
			case <-ctx.Done():
			}
			return nil, errors.New("nobody is there")
		}
	})
	c := asidetest.NewCache(t, o)
	o.Redis.InitAddress[0], o.Redis.InitAddress[1] = "changed:3", "changed:4"
	o.Redis.TLSConfig.ServerName = "changed"
	close(changed)
	seen := map[string]bool{}
	for range 8 {
		d := <-dials
		require.NotContains(t, d.addr, "changed")
		require.Equal(t, "first", d.server)
		seen[d.addr] = true
	}
	require.Equal(t, "aside.Cache{aside.Options{redis first:1,second:2 db 0 tls true}}", c.String(), "in the order that was given")
	require.Len(t, seen, 2)
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	for {
		select {
		case <-dials:
		case <-done:
			return
		}
	}
}

func TestTheEnvironmentSaysWhereRedisIs(t *testing.T) {
	type want struct {
		addr, user, password string
		db                   int
		tls                  string // the server's name in its certificate; empty for no TLS
	}
	local := want{addr: "localhost:6379"}
	with := func(w want, change func(*want)) want { change(&w); return w }
	for _, tc := range []struct {
		env  map[string]string
		want want
	}{
		{map[string]string{"REDIS_HOST": "cache.internal"}, want{addr: "cache.internal:6379"}},
		{map[string]string{"REDIS_HOST": "10.1.2.3"}, want{addr: "10.1.2.3:6379"}},
		{map[string]string{"REDIS_HOST": "::1"}, want{addr: "[::1]:6379"}},
		{map[string]string{"REDIS_HOST": "[::1]"}, want{addr: "[::1]:6379"}},
		{map[string]string{"REDIS_HOST": "fe80::1%eth0"}, want{addr: "[fe80::1%eth0]:6379"}},
		{map[string]string{"REDIS_HOST": "2001:db8::7", "REDIS_TLS": "true"}, want{addr: "[2001:db8::7]:6379", tls: "2001:db8::7"}},
		{map[string]string{"REDIS_PORT": "6380"}, want{addr: "localhost:6380"}},
		{map[string]string{"REDIS_PORT": "65535"}, want{addr: "localhost:65535"}},
		{map[string]string{"REDIS_USERNAME": "app"}, with(local, func(w *want) { w.user = "app" })},
		{map[string]string{"REDIS_PASSWORD": "p:@/#%?"}, with(local, func(w *want) { w.password = "p:@/#%?" })},
		{map[string]string{"REDIS_DB": "3"}, with(local, func(w *want) { w.db = 3 })},
		{map[string]string{"REDIS_DB": "0"}, local},
		{map[string]string{"REDIS_TLS": "true"}, with(local, func(w *want) { w.tls = "localhost" })},
		{map[string]string{"REDIS_TLS": "1"}, with(local, func(w *want) { w.tls = "localhost" })},
		{map[string]string{"REDIS_TLS": "false"}, local},
		{
			map[string]string{"REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_USERNAME": "u", "REDIS_PASSWORD": "p", "REDIS_DB": "15", "REDIS_TLS": "true"},
			want{"h:1", "u", "p", 15, "h"},
		},
		{map[string]string{"REDIS_URL": "redis://h"}, want{addr: "h:6379"}},
		{map[string]string{"REDIS_URL": " redis://:p@h:1\r\n"}, want{addr: "h:1", password: "p"}},
		{map[string]string{"REDIS_URL": "redis://h/"}, want{addr: "h:6379"}},
		{map[string]string{"REDIS_URL": "redis://h:1/0"}, want{addr: "h:1"}},
		{map[string]string{"REDIS_URL": "redis://u:p@h:1/7"}, want{"h:1", "u", "p", 7, ""}},
		{map[string]string{"REDIS_URL": "redis://:p@h:1"}, want{addr: "h:1", password: "p"}},
		{map[string]string{"REDIS_URL": "redis://u%40x:p%3A%2F%40%25%23@h:1/7"}, want{"h:1", "u@x", "p:/@%#", 7, ""}},
		{map[string]string{"REDIS_URL": "redis://h:1?db=4"}, want{addr: "h:1", db: 4}},
		{map[string]string{"REDIS_URL": "rediss://u:p@h:1/7"}, want{"h:1", "u", "p", 7, "h"}},
		{map[string]string{"REDIS_URL": "redis://[::1]:1/2"}, want{addr: "[::1]:1", db: 2}},
		{map[string]string{"REDIS_URL": "rediss://[::1]"}, want{addr: "[::1]:6379", tls: "::1"}},
		{map[string]string{"REDIS_URL": "valkey://u:p@h:1/7"}, want{"h:1", "u", "p", 7, ""}},
		{map[string]string{"REDIS_URL": "valkeys://u:p@h:1/7"}, want{"h:1", "u", "p", 7, "h"}},
		{map[string]string{"REDIS_URL": "unix:///run/redis.sock"}, want{addr: "/run/redis.sock"}},
		{map[string]string{"REDIS_URL": "redis://u:p@h:1/7?client_name=a@b"}, want{"h:1", "u", "p", 7, ""}},
		{map[string]string{"REDIS_URL": "redis://h:1/7?client_name=a@b/c"}, want{addr: "h:1", db: 7}},
		{map[string]string{"REDIS_URL": "rediss://:p@h?client_name=a@b&db=7"}, want{addr: "h:6379", password: "p", db: 7, tls: "h"}},
		{map[string]string{"REDIS_URL": "redis://[::1]:1/7?client_name=a@b"}, want{addr: "[::1]:1", db: 7}},
		{map[string]string{"REDIS_URL": "unix://u:p@/run/redis.sock?client_name=a@b"}, want{addr: "/run/redis.sock", user: "u", password: "p"}},
		{map[string]string{"REDIS_URL": "unix:///run/redis@7.sock"}, want{addr: "/run/redis@7.sock"}},
		{map[string]string{"REDIS_URL": "unix://u:p@/run/redis.sock?db=7"}, want{"/run/redis.sock", "u", "p", 7, ""}},
		{map[string]string{"REDIS_URL": "redis://u:p:q;r=$!*'()@h"}, want{addr: "h:6379", user: "u", password: "p:q;r=$!*'()"}},
	} {
		t.Run(fmt.Sprint(tc.env), func(t *testing.T) {
			asidetest.Environment(t, tc.env)
			for _, name := range asidetest.RedisVariables { // an empty variable counts as not set
				if tc.env[name] == "" {
					t.Setenv(name, "")
				}
			}
			o, err := aside.OptionsFromEnv()
			require.NoError(t, err)
			got := want{o.Redis.InitAddress[0], "", "", o.Redis.SelectDB, ""}
			if o.Redis.AuthCredentialsFn != nil {
				as, err := o.Redis.AuthCredentialsFn(rueidis.AuthCredentialsContext{})
				require.NoError(t, err)
				got.user, got.password = as.Username, as.Password
			}
			require.Empty(t, o.Redis.Username+o.Redis.Password, "nothing prints them")
			if conf := o.Redis.TLSConfig; conf != nil {
				got.tls = conf.ServerName
				require.GreaterOrEqual(t, conf.MinVersion, uint16(tls.VersionTLS12))
				require.False(t, conf.InsecureSkipVerify)
			}
			require.Len(t, o.Redis.InitAddress, 1)
			require.Equal(t, tc.want, got)

			o.Logger, o.Redis.DialCtxFn = asidetest.Quiet(), asidetest.Nowhere
			c, err := aside.New(o)
			require.NoError(t, err, "what the environment gives, New takes")
			require.NoError(t, c.Close())
		})
	}
}

func TestAnEmptyEnvironmentMeansMemory(t *testing.T) {
	asidetest.Environment(t, nil)
	for range 2 {
		o, err := aside.OptionsFromEnv()
		require.NoError(t, err)
		require.Equal(t, aside.Options{}, o)
		require.Equal(t, aside.StateMemory, asidetest.NewCache(t, o).Health().State)
		for _, name := range asidetest.RedisVariables { // and so does one of empty variables
			t.Setenv(name, "")
		}
	}
}

func TestAMalformedVariableIsNamedAndNotShown(t *testing.T) {
	type env = map[string]string
	var cases []struct {
		env   env
		names []string
	}
	add := func(e env, names ...string) {
		cases = append(cases, struct {
			env   env
			names []string
		}{e, names})
	}
	for _, host := range []string{
		"redis://X", "rediss://u:X@h", "X:6379", "X:", ":6379", "u@X", "X/0", " X", "X\t", "X\nY", "[::1]:6379", "[::1", "::1]", "[X]", "1:2:X",
		"X?y", "X#y", "%X", "::1 X",
	} {
		add(env{"REDIS_HOST": strings.ReplaceAll(host, "X", asidetest.Canary)}, "REDIS_HOST", "without a scheme or a port")
	}
	for _, port := range []string{"X", "0", "-1", "65536", "6379/X", "6379 ", "+1", "1e3", "0x1", "99999999999999999999"} {
		add(env{"REDIS_PORT": strings.ReplaceAll(port, "X", asidetest.Canary)}, "REDIS_PORT", "1 to 65535")
	}
	for _, db := range []string{"X", "-1", "1.5", "0x1", " 1", "4294967296", "99999999999999999999"} {
		add(env{"REDIS_DB": strings.ReplaceAll(db, "X", asidetest.Canary)}, "REDIS_DB", "from 0 up")
	}
	for _, v := range []string{"X", "yes", "on", "2", " true"} {
		add(env{"REDIS_TLS": strings.ReplaceAll(v, "X", asidetest.Canary)}, "REDIS_TLS", "true or false")
	}
	add(env{"REDIS_PORT": asidetest.Canary, "REDIS_DB": asidetest.Canary, "REDIS_TLS": asidetest.Canary, "REDIS_HOST": asidetest.Canary + ":1"}, "REDIS_PORT", "REDIS_DB", "REDIS_TLS", "REDIS_HOST")
	for _, text := range []string{
		"X", "http://u:X@h", "unix://", "unix://h/X", "unix:///", "unix:X", "unix:///X?db=a", "unix:///X?addr=h:1", "//u:X@h", "redis:X", "redis:///X", "redis://", "redis://:X@", "redis://:X@:6379/0",
		"redis://u:X@h:0", "redis://u:X@h:65536", "redis://u:X@h:99999999999999999999", "redis://u:X@h:port", "redis://u:X@h:-1",
		"redis://u:X@h/X", "redis://u:X@h/-1", "redis://u:X@h/1.5", "redis://u:X@h/1/2", "redis://u:X@h/1/", "redis://u:X@h?db=X", "redis://u:X@h?db=-1",
		"redis://u:X@h/1?db=2", "redis://u:X@h?dial_timeout=X", "redis://u:X@h?write_timeout=X",
		"redis://u:X%@h", "redis://u:X%zz@h", "redis://u:X@%zz", "redis://u:X@h/%zz", "redis://u:X@h?db=%zz", "redis://u:X@h?db=1;X",
		"redis://u:12#X@h", "redis://h/0#X", "redis://u:X @h", "redis://u:X@h h",
		"redis://u:X@[::1", "redis://u:X@[zz]:1", "redis://u:X@1::2",
		"redis://u:X@h?addr=X", "redis://u:X@h?addr=h2:0", "redis://u:X@h?addr=h2:6379&addr=X@h3:1",
	} {
		add(env{"REDIS_URL": strings.ReplaceAll(text, "X", asidetest.Canary)}, "REDIS_URL", "write redis://user:password@host:port/db")
	}
	for _, special := range []string{"#", "/", "?", "[", "]", "^", `"`, "%zz", "<", ">", " ", `\`, "{", "|", "`", "@/", "é", "/0?name=", "/x?db=", "/0?db=#"} {
		for _, user := range []string{"u", ""} {
			password := asidetest.Canary + special + asidetest.Canary
			add(env{"REDIS_URL": "redis://" + user + ":" + password + "@h:6379/0"}, "REDIS_URL", "percent-escape", "%23")
		}
		add(env{"REDIS_URL": "redis://" + asidetest.Canary + special + asidetest.Canary + ":p@h:6379/0"}, "REDIS_URL", "percent-escape", "%23")
	}
	for _, query := range []string{"skip_verify", "skip_verify=true", "skip_verify=false", "skip_verify=X", "db=1&skip_verify=1"} {
		add(env{"REDIS_URL": strings.ReplaceAll("rediss://u:X@h?"+query, "X", asidetest.Canary)}, "REDIS_URL", "skip_verify", "Options.Redis.TLSConfig")
	}
	for _, name := range asidetest.RedisVariables[1:] {
		add(env{"REDIS_URL": "redis://u:" + asidetest.Canary + "@h", name: asidetest.Canary}, "REDIS_URL", name, "both set")
	}
	for _, tc := range cases {
		// The name of a test is printed too: it shows the canary's place alone.
		t.Run(strings.ReplaceAll(fmt.Sprintf("%q", tc.env), asidetest.Canary, "X"), func(t *testing.T) {
			asidetest.Environment(t, tc.env)
			if tc.env["REDIS_URL"] == "" {
				t.Setenv("REDIS_PASSWORD", asidetest.Canary)
			}
			o, err := aside.OptionsFromEnv()
			asidetest.RequireCode(t, err, aside.CodeInvalidOption)
			for _, name := range tc.names {
				require.ErrorContains(t, err, name)
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				require.NotContains(t, fmt.Sprintf(verb, err), asidetest.Canary, verb)
			}
			require.Equal(t, aside.Options{}, o, "nothing half read is handed out")
		})
	}
}

// A new program finds all its mistakes at its first start.
func TestAllMistakesOfAPolicyAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := aside.New(aside.Options{Policies: []aside.Policy{{Category: "ok", TTL: time.Hour}, {Category: "a", TTL: 1, MaxBatch: -1, Jitter: 2}}})
	require.EqualError(t, err, `Options.Policies[1]: aside: policy "a": TTL is 1ns: set at least 1ms, the unit of Redis
Options.Policies[1]: aside: policy "a": MaxBatch is -1: set a positive number of ids, or 0 for any number
Options.Policies[1]: aside: policy "a": Jitter is 2: set a fraction from 0 to less than 1`)
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption})
	c := asidetest.NewCache(t, aside.Options{})
	_, err = aside.Get[string](t.Context(), c, (&aside.Policy{Category: "a", TTL: -1, Version: -1}).Key(1))
	require.ErrorContains(t, err, "TTL is -1ns")
	require.ErrorContains(t, err, "Version is -1")
}
