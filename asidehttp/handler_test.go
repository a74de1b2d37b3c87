package asidehttp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

// The keys of the tests. None of them may ever be printed.
const (
	keyAll    = "canary-of-a-key-for-everything"
	keyOld    = "canary-of-the-key-of-yesterday"
	keyRead   = "canary-of-a-key-that-reads"
	keyChange = "canary-of-a-key-that-invalidates"
	keyHashed = "canary-of-a-key-that-is-configured-by-its-hash"
	keyWrong  = "canary-of-a-key-that-nobody-has-configured"
)

// output is a writer that can be read meanwhile.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(o, nil)) }

func options(log io.Writer) asidehttp.Options {
	sum := sha256.Sum256([]byte(keyHashed))
	return asidehttp.Options{
		APIKeys: keysOf("", keyOld+"\n", keyAll),
		Keys: []asidehttp.Key{
			{Name: "dashboard", Secret: aside.NewSecret(keyRead), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}},
			{Name: "deploy", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
			{Name: "hashed", SHA256: hex.EncodeToString(sum[:]), Scopes: []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeInvalidate}},
			{Name: "not set", Scopes: []asidehttp.Scope{asidehttp.ScopeAll}},
		},
		Rate:   -1,
		Logger: slog.New(slog.NewJSONHandler(log, nil)),
	}
}

func newCache(t testing.TB, o aside.Options) *aside.Cache {
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := aside.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// ask serves one request. Each of authorization is a header of its own.
func ask(h http.Handler, method, target, body string, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// seed fills a cache with values of each category, some of them with a tag, and returns how many of them are still there.
func seed(t testing.TB, c *aside.Cache) (left func() int) {
	ctx := context.Background()
	keys := []aside.Key{
		aside.TTL.ModelsAll.Key("all", "all"), aside.TTL.ModelsGateway.Key("openrouter", "all"), aside.TTL.SessionsList.Key("ABC", "list", 50, 0),
		aside.TTL.SessionDetail.Key("ABC", 456, "full"), aside.TTL.SessionDetail.Key("ABCD", 7, "full"), aside.TTL.SessionsList.Key("a:b*", "list", 50, 0),
		aside.TTL.ChatStats.Key("ABC"), aside.TTL.UserProfile.Key("DEF", "profile"), aside.TTL.ActivityStats.Key("ABC", "stats", "day"), aside.TTL.RankingsModels.Key("models", "all"),
	}
	for i, key := range keys {
		var opts []aside.CallOption
		if i < 2 {
			opts = append(opts, aside.WithTags("supplier 3"))
		}
		asidetest.Stored(t, c, key, "v", opts...)
	}
	return func() (n int) {
		for _, key := range keys {
			if _, err := aside.Get[string](ctx, c, key); err == nil {
				n++
			}
		}
		return n
	}
}

const seeded = 10

// A body, and how it is answered when its key may do anything.
type post struct {
	name    string
	body    string
	status  int
	says    string // of a refusal: what to send instead
	removed int    // of a good one
}

func posts() []post {
	return []post{
		{"a category", `{"category":"sessions"}`, 200, "", 4},
		{"everything", `{"category":"all"}`, 200, "", seeded},
		{"a pattern", `{"pattern":"sessions:ABC:*"}`, 200, "", 2},
		{"a pattern with an escaped part", `{"pattern":"sessions:a%3Ab%2A:*"}`, 200, "", 1},
		{"keys", `{"keys":["sessions:ABC:list:50:0","models:all:all","models:none:all"]}`, 200, "", 2},
		{"a key with an escaped part", `{"keys":["sessions:a%3Ab%2A:list:50:0"]}`, 200, "", 1},
		{"a tag", `{"tags":["supplier 3"]}`, 200, "", 2},
		{"a tag that nothing carries", `{"tags":["supplier 4"]}`, 200, "", 0},
		{"white space and an escape", " {\"category\" :\n\"mod\\u0065ls\"} \r\n", 200, "", 2},
		{"a wait", `{"category":"models","wait":0.5}`, 200, "", 2},
		{"no wait", `{"wait":0,"category":"models"}`, 200, "", 2},
		{"a surrogate pair", `{"tags":["\ud83d\ude00"]}`, 200, "", 0},

		{"empty", "", 415, "application/json", 0},
		{"white space", "  \n", 400, `{"category":"models"}`, 0},
		{"no JSON", "category=models", 400, `{"category":"models"}`, 0},
		{"JSON that is cut off", `{"category":"models"`, 400, `{"category":"models"}`, 0},
		{"an object and more", `{"category":"models"} {}`, 400, "nothing else", 0},
		{"an object and a stray brace", `{"category":"models"}}`, 400, "nothing else", 0},
		{"a comment", `{"category":"models"} // all of them`, 400, "nothing else", 0},
		{"a list", `["models"]`, 400, "not a JSON object", 0},
		{"a text", `"models"`, 400, "not a JSON object", 0},
		{"null", `null`, 400, "not a JSON object", 0},
		{"no selector", `{}`, 400, `{"pattern":"sessions:ABC:*"}`, 0},
		{"no selector but a wait", `{"wait":1}`, 400, `{"tags":["supplier 3"]}`, 0},
		{"two selectors", `{"category":"models","pattern":"models:*"}`, 400, "send one of them", 0},
		{"two other selectors", `{"keys":["models:all:all"],"tags":["a"]}`, 400, "send one of them", 0},
		{"one selector twice", `{"category":"models","category":"sessions"}`, 400, "send it once", 0},
		{"one selector twice, once escaped", `{"category":"models","c\u0061tegory":"models"}`, 400, "send it once", 0},
		{"an unknown field", `{"category":"models","recursive":true}`, 400, `"recursive"`, 0},
		{"a field in capitals", `{"Category":"models"}`, 400, `"Category"`, 0},
		{"a very long unknown field", `{"` + strings.Repeat("x", 1000) + `":1}`, 400, `x"…`, 0},
		{"a category that is a number", `{"category":5}`, 400, "not a text", 0},
		{"a category that is a list", `{"category":["models"]}`, 400, "not a text", 0},
		{"a category that is null", `{"category":null}`, 400, "not a text", 0},
		{"a category that is empty", `{"category":""}`, 400, "not a text", 0},
		{"a pattern that is an object", `{"pattern":{"glob":"models:*"}}`, 400, "not a text", 0},
		{"keys that are a text", `{"keys":"models:all:all"}`, 400, "not a list of texts", 0},
		{"keys that are empty", `{"keys":[]}`, 400, "not a list of texts", 0},
		{"keys that are null", `{"keys":null}`, 400, "not a list of texts", 0},
		{"a key that is null", `{"keys":["models:all:all",null]}`, 400, "keys[1]", 0},
		{"a key that is a number", `{"keys":["models:all:all",5]}`, 400, "not a list of texts", 0},
		{"a tag that is empty", `{"tags":["supplier 3",""]}`, 400, "tags[1]", 0},
		{"a wait that is a text", `{"category":"models","wait":"5s"}`, 400, "number of seconds", 0},
		{"a wait that is negative", `{"category":"models","wait":-1}`, 400, "number of seconds", 0},
		{"a wait that is too long", `{"category":"models","wait":31}`, 400, "from 0 to 30", 0},
		{"a wait beyond numbers", `{"category":"models","wait":1e999}`, 400, "number of seconds", 0},
		{"a dry run that is a text", `{"category":"models","dry_run":"yes"}`, 400, "true nor false", 0},
		{"a dry run that is null", `{"category":"models","dry_run":null}`, 400, "true nor false", 0},
		{"invalid UTF-8", "{\"category\":\"models\xff\"}", 400, "not UTF-8", 0},
		{"invalid UTF-8 in a tag", "{\"tags\":[\"\xc3\x28\"]}", 400, "not UTF-8", 0},
		{"half of a surrogate pair", `{"tags":["\ud83d"]}`, 400, "both halves", 0},
		{"the other half", `{"tags":["\\\ude00"]}`, 400, "both halves", 0},
		{"deep nesting", `{"keys":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400, `{"category":"models"}`, 0},

		{"an unknown category", `{"category":"model"}`, 422, "activity, models, rankings, sessions, stats, user, and all", 0},
		{"a category in capitals", `{"category":"MODELS"}`, 422, "models", 0},
		{"a category that is a pattern", `{"category":"*"}`, 422, "models", 0},
		{"a category of the internals", `{"category":"%all"}`, 422, "models", 0},
		{"a lone asterisk", `{"pattern":"*"}`, 422, "sessions:ABC:*", 0},
		{"a pattern without a literal prefix", `{"pattern":"*:ABC:*"}`, 422, "sessions:ABC:*", 0},
		{"a pattern with half a category", `{"pattern":"sess*"}`, 422, "sessions:ABC:*", 0},
		{"a pattern of an unknown category", `{"pattern":"session:ABC:*"}`, 422, "sessions", 0},
		{"a pattern of 129 bytes", `{"pattern":"sessions:` + strings.Repeat("A", 119) + `*"}`, 422, "128", 0},
		{"a pattern with a brace", `{"pattern":"sessions:{ABC}:*"}`, 422, "%7B", 0},
		{"a pattern of the internals", `{"pattern":"%c:*"}`, 422, "category", 0},
		{"a key of an unknown category", `{"keys":["models:all:all","session:ABC"]}`, 422, "keys[1]", 0},
		{"a key that is a pattern", `{"keys":["models:*"]}`, 422, "percent-escaped", 0},
		{"a key of the internals", `{"keys":["%c:models"]}`, 422, "keys[0]", 0},
		{"a lease", `{"keys":["{models:all:all}!l"]}`, 422, "keys[0]", 0},
		{"a key with a needless escape", `{"keys":["models:%61ll:all"]}`, 422, "and no others", 0},
		{"a key with a broken escape", `{"keys":["models:100%:all"]}`, 422, "%25", 0},
		{"a tag that is too long", `{"tags":["` + strings.Repeat("t", 600) + `"]}`, 422, "too long", 0},
		{"more keys than may be", `{"keys":["models:all:all"` + strings.Repeat(`,"models:x"`, 1000) + `]}`, 422, "1000", 0},
		{"more tags than may be", `{"tags":["supplier 3"` + strings.Repeat(`,"a"`, 1000) + `]}`, 422, "1000", 0},
		{"64 KiB and a byte", `{"tags":["supplier 3"]}` + strings.Repeat(" ", 64<<10-22), 413, "65536", 0},
		{"10 MB", `{"tags":["` + strings.Repeat("t", 10_000_000) + `"]}`, 413, "65536", 0},
	}
}

// A credential, and what it opens.
type credential struct {
	name          string
	authorization []string
	known         bool
	read, change  bool
	empty         bool // everything at once
}

func credentials() []credential {
	return []credential{
		{"a key for everything", []string{"Bearer " + keyAll}, true, true, true, true},
		{"the other one, for a rotation", []string{"bearer   " + keyOld + " "}, true, true, true, true},
		{"a key that reads", []string{"Bearer " + keyRead}, true, true, false, false},
		{"a key that invalidates", []string{"Bearer " + keyChange}, true, false, true, false},
		{"a key with two scopes, known by its hash", []string{"Bearer " + keyHashed}, true, true, true, false},
		{"nothing", nil, false, false, false, false},
		{"an empty header", []string{""}, false, false, false, false},
		{"an empty key", []string{"Bearer "}, false, false, false, false},
		{"white space", []string{"Bearer  \t"}, false, false, false, false},
		{"an unknown key", []string{"Bearer " + keyWrong}, false, false, false, false},
		{"the beginning of a key", []string{"Bearer " + keyAll[:len(keyAll)-1]}, false, false, false, false},
		{"a key and more", []string{"Bearer " + keyAll + "x"}, false, false, false, false},
		{"a hash in place of its key", []string{"Bearer " + fmt.Sprintf("%x", sha256.Sum256([]byte(keyHashed)))}, false, false, false, false},
		{"no scheme", []string{keyAll}, false, false, false, false},
		{"another scheme", []string{"Basic " + keyAll}, false, false, false, false},
		{"two headers", []string{"Bearer " + keyAll, "Bearer " + keyAll}, false, false, false, false},
		{"two keys", []string{"Bearer " + keyAll + ", Bearer " + keyRead}, false, false, false, false},
		{"an endless key", []string{"Bearer " + strings.Repeat(keyAll, 1000)}, false, false, false, false},
	}
}

// The matrix: every method with every credential and every body has its status, says what to send instead, invalidates what it
// should and nothing else, and tells no secret.
func TestMethodByCredentialByBody(t *testing.T) {
	t.Parallel()
	var log output
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(&log))
	left := seed(t, c)
	counts := map[int]int{}
	bodies := posts()
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
		for _, cred := range credentials() {
			for _, body := range bodies {
				target := "/api/cache/invalidate"
				if method == "GET" || method == "HEAD" {
					target += "?metrics=true"
				}
				name := method + ", " + cred.name + ", " + body.name
				w := ask(h, method, target, body.body, cred.authorization...)

				status, removed := body.status, body.removed
				switch {
				case !cred.known:
					status = 401
				case method == "GET" || method == "HEAD":
					if status = 403; cred.read {
						status = 200
					}
				case method != "POST":
					status = 405
				case !cred.change, body.name == "everything" && !cred.empty:
					status = 403
				}
				if method != "POST" || status != 200 {
					removed = 0
				}
				counts[status]++
				require.Equal(t, status, w.Code, name)
				require.Equal(t, "no-store", w.Header().Get("Cache-Control"), name)
				require.Equal(t, status == 401 || status == 403, w.Header().Get("WWW-Authenticate") != "", name)
				require.Equal(t, status == 405, w.Header().Get("Allow") != "", name)
				require.NotContains(t, w.Body.String(), "canary", name)
				if gone := seeded - left(); gone != removed {
					t.Fatalf("%s: %d values are gone, not %d", name, gone, removed)
				}
				if removed > 0 {
					left = seed(t, c)
				}
				if status == 200 {
					require.Equal(t, "application/json", w.Header().Get("Content-Type"), name)
					continue
				}
				p := problemOf(t, w)
				require.Equal(t, status, p.Status, name)
				require.Less(t, len(p.Detail), 600, name)
				switch status {
				case 401:
					require.Contains(t, p.Detail, "Authorization: Bearer", name)
				case 403:
					require.Contains(t, p.Detail, "scope", name)
					require.Contains(t, w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`, name)
				case 405:
					require.Contains(t, p.Detail, "POST", name)
				default:
					require.Contains(t, p.Detail, body.says, name)
				}
			}
		}
	}
	t.Logf("requests by status: %v", counts)
	for _, status := range []int{200, 400, 401, 403, 405, 413, 415, 422} {
		require.NotZero(t, counts[status], status)
	}
	require.NotContains(t, log.String(), "canary")
}

type details struct {
	Type, Title, Detail string
	Status              int
}

func problemOf(t testing.TB, w *httptest.ResponseRecorder) (p details) {
	t.Helper()
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p), w.Body.String())
	require.Equal(t, http.StatusText(p.Status), p.Title)
	return p
}

func TestAnotherMediaTypeIsRefused(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	left := seed(t, c)
	for kind, status := range map[string]int{
		"application/json":                   200,
		"Application/JSON; charset=UTF-8":    200,
		"application/json; charset=latin1":   415,
		"application/x-www-form-urlencoded":  415,
		"text/plain":                         415,
		"application/merge-patch+json":       415,
		"application/json, application/json": 415,
		";":                                  415,
		"":                                   415,
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"tags":["nobody's"]}`))
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Authorization", "Bearer "+keyAll)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, status, w.Code, kind)
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"category":"all"}`))
	r.Header = http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}, "Authorization": {"Bearer " + keyAll}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 415, w.Code)
	require.Equal(t, seeded, left())
}

func TestQueriesOfAPOSTAndWrongOnesOfAGET(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	left := seed(t, c)
	h, m := asidehttp.AdminHandler(c, options(io.Discard)), asidehttp.Metrics(c, options(io.Discard))
	for _, tt := range []struct {
		handler http.Handler
		method  string
		query   string
		status  int
	}{
		{h, "POST", "?metrics=true", 400},
		{h, "POST", "?category=all", 400},
		{h, "GET", "", 400},
		{h, "GET", "?metrics=false", 400},
		{h, "GET", "?metrics=1", 400},
		{h, "GET", "?metrics=true&metrics=true", 400},
		{h, "GET", "?metrics=true&patern=models:*", 400},
		{h, "GET", "?pattern=models:*", 400},
		{h, "GET", "?metrics=true&pattern=models:*&pattern=user:*", 400},
		{h, "GET", "?metrics=true&pattern=%zz", 400},
		{h, "GET", "?metrics=true;pattern=models:*", 400},
		{h, "GET", "?metrics=true&pattern=", 422},
		{h, "GET", "?metrics=true&pattern=*", 422},
		{h, "GET", "?metrics=true&pattern=model:*", 422},
		{h, "GET", "?metrics=true&pattern=models:%ff*", 422},
		{h, "GET", "?metrics=true&pattern=models:*", 200},
		{m, "GET", "", 200},
		{m, "HEAD", "", 200},
		{m, "GET", "?metrics=true", 200},
		{m, "GET", "?pattern=models:*", 200},
		{m, "GET", "?metrics=false", 400},
		{m, "GET", "?limit=5", 400},
		{m, "GET", "?pattern=*", 422},
		{m, "POST", "", 405},
	} {
		body := ""
		if tt.method == "POST" {
			body = `{"category":"all"}`
		}
		w := ask(tt.handler, tt.method, "/"+tt.query, body, "Bearer "+keyAll)
		require.Equal(t, tt.status, w.Code, "%s %s: %s", tt.method, tt.query, w.Body)
		if tt.status != 200 {
			require.NotEmpty(t, problemOf(t, w).Detail)
		}
		require.Equal(t, 401, ask(tt.handler, tt.method, "/"+tt.query, body).Code)
	}
	require.Equal(t, 403, ask(m, "GET", "/", "", "Bearer "+keyChange).Code)
	require.Equal(t, seeded, left())
}

func TestWithoutAConfiguredKeyEverythingIsDenied(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	left := seed(t, c)
	for name, o := range map[string]asidehttp.Options{
		"none":            {},
		"empty ones":      {APIKeys: keysOf("", " \n"), Keys: []asidehttp.Key{{Name: "x", Scopes: []asidehttp.Scope{asidehttp.ScopeAll}}}},
		"none of a scope": {Keys: []asidehttp.Key{{Secret: aside.NewSecret(keyAll)}}},
	} {
		var log output
		o.Logger = log.logger()
		h := asidehttp.AdminHandler(c, o)
		for _, authorization := range []string{"Bearer " + keyAll, "Bearer", "Bearer ", "Bearer  \n", ""} {
			require.Equal(t, 401, ask(h, "POST", "/", `{"category":"all"}`, authorization).Code, name)
			require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", authorization).Code, name)
		}
		logged(t, &log, "every request is denied", 1)
	}
	require.Equal(t, seeded, left())
}

func TestWrongOptionsAreNamedAndOpenNothing(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	all := []asidehttp.Scope{asidehttp.ScopeAll}
	var log output
	o := asidehttp.Options{
		APIKeys: keysOf(strings.Repeat(keyAll, 100)),
		Keys: []asidehttp.Key{
			{Secret: aside.NewSecret(keyAll)},
			{Secret: aside.NewSecret(keyAll), Scopes: []asidehttp.Scope{"admin"}},
			{Secret: aside.NewSecret(keyAll), SHA256: hex.EncodeToString(make([]byte, 32)), Scopes: all},
			{SHA256: "canary-5a5a", Scopes: all},
			{SHA256: hex.EncodeToString(make([]byte, 31)), Scopes: all},
			{SHA256: hex.EncodeToString(make([]byte, 33)), Scopes: all},
		},
		Burst:  -1,
		Logger: log.logger(),
	}
	o.TrustedProxies = append(o.TrustedProxies, o.TrustedProxies[:0:0]...)
	err := o.Validate()
	for _, want := range []string{"APIKeys[0]", "Keys[0] has no scope", `Keys[1] has an unknown scope "admin"`, "Keys[2]", "Keys[3]", "Keys[4]", "Keys[5]", "Burst"} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "canary")
	h := asidehttp.AdminHandler(c, o)
	require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code)
	logged(t, &log, "Keys[3]", 1)
	require.NotContains(t, log.String(), "canary")
	require.NoError(t, options(io.Discard).Validate())
	require.NoError(t, asidehttp.Options{}.Validate())
}

func TestKeysArePrintedByNoVerb(t *testing.T) {
	t.Parallel()
	o := options(io.Discard)
	var log output
	log.logger().Info("x", "options", o, "pointer", &o, "key", o.Keys[0])
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		fmt.Fprintf(&log, verb+verb+verb, o, &o, o.Keys)
	}
	log.logger().Info("x", "a configuration", struct {
		Admin asidehttp.Options
		Keys  []asidehttp.Key
	}{o, o.Keys})
	require.NotContains(t, log.String(), "canary")
	require.NotContains(t, log.String(), hex.EncodeToString([]byte("canary")))
	require.Contains(t, log.String(), `"Admin":"asidehttp.Options{5 keys}"`)
	require.Equal(t, "asidehttp.Options{5 keys}", fmt.Sprint(o))
	require.Equal(t, `asidehttp.Key{"dashboard" ["read"]}`, fmt.Sprint(o.Keys[0]))
}

func TestEveryChangeIsWrittenDown(t *testing.T) {
	t.Parallel()
	var log output
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(&log))
	seed(t, c)
	lines := func() (lines []map[string]any) {
		t.Helper()
		for line := range strings.Lines(log.String()) {
			var fields map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &fields))
			lines = append(lines, fields)
		}
		return lines
	}
	ask(h, "POST", "/", `{"pattern":"sessions:ABC:*"}`, "Bearer "+keyChange)
	ask(h, "POST", "/", `{"keys":["models:all:all","`+"models:"+strings.Repeat("x", 500)+`"`+strings.Repeat(`,"models:x"`, 20)+`]}`, "Bearer "+keyAll)
	ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyChange) // denied
	ask(h, "POST", "/", `{"category":"nothing"}`, "Bearer "+keyAll)
	ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyWrong)
	ask(h, "POST", "/", `{"category":"all","dry_run":true}`, "Bearer "+keyAll)
	ask(h, "GET", "/?metrics=true", "", "Bearer "+keyAll)

	logged(t, &log, "\n", 4)
	got := lines()
	require.Len(t, got, 4, "one for each change, for what a known key may not do, and for unknown keys")
	first := got[0]
	require.Equal(t, []any{"INFO", "deploy", "192.0.2.1", "pattern", []any{"sessions:ABC:*"}, 1.0, 200.0, 2.0, true, true},
		[]any{first["level"], first["key"], first["client"], first["by"], first["names"], first["count"], first["status"], first["removed"], first["complete"], first["confirmed"]})
	second := got[1]
	require.Equal(t, 22.0, second["count"])
	require.Len(t, second["names"], 10)
	require.Less(t, len(second["names"].([]any)[1].(string)), 140)
	sum := sha256.Sum256([]byte(keyAll))
	require.Equal(t, "sha256:"+hex.EncodeToString(sum[:4]), second["key"])
	third := got[2]
	require.Equal(t, []any{"WARN", "deploy", "all"}, []any{third["level"], third["key"], third["scope"]})
	require.Equal(t, []any{"WARN", "192.0.2.1", 1.0}, []any{got[3]["level"], got[3]["client"], got[3]["requests"]})
	require.NotContains(t, log.String(), keyWrong)
}

// Whoever tries out keys is seen, and cannot fill the log.
func TestRequestsWithoutAValidKeyAreWrittenDownNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log output
		h := asidehttp.AdminHandler(newCache(t, aside.Options{}), options(&log))
		tried := func() (requests []any) {
			for line := range strings.Lines(log.String()) {
				var fields map[string]any
				require.NoError(t, json.Unmarshal([]byte(line), &fields))
				requests = append(requests, fields["requests"])
			}
			return requests
		}
		for range 50 {
			ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyWrong)
		}
		require.Equal(t, []any{1.0}, tried())
		time.Sleep(11 * time.Second)
		ask(h, "GET", "/?metrics=true", "")
		require.Equal(t, []any{1.0, 50.0}, tried())
	})
}

func TestADryRunCountsAndChangesNothing(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	left := seed(t, c)
	for _, p := range posts() {
		if p.status != 200 || strings.Contains(p.body, "wait") {
			continue
		}
		body := strings.TrimSpace(p.body)
		w := ask(h, "POST", "/", body[:len(body)-1]+`,"dry_run":true}`, "Bearer "+keyAll)
		require.Equal(t, 200, w.Code, p.name)
		var a struct {
			Success     bool
			DryRun      bool `json:"dry_run"`
			Matched     map[string]any
			Invalidated any
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
		require.True(t, a.Success && a.DryRun, p.name)
		require.Nil(t, a.Invalidated, p.name)
		require.Equal(t, float64(p.removed), a.Matched["memory_entries"], p.name)
		require.Equal(t, true, a.Matched["complete"], p.name)
		require.Equal(t, seeded, left(), p.name)
	}
	w := ask(h, "POST", "/", `{"category":"all","dry_run":true}`, "Bearer "+keyChange)
	require.Equal(t, 403, w.Code, "a dry run asks for the same scope")
}

func TestAnAnswerInTheDocumentedForm(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	seed(t, c)
	before := time.Now().UnixMilli()
	w := ask(h, "POST", "/", `{"category":"sessions"}`, "Bearer "+keyAll)
	var a struct {
		Success     bool           `json:"success"`
		Invalidated map[string]any `json:"invalidated"`
		Timestamp   int64          `json:"timestamp"`
	}
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&a))
	require.True(t, a.Success)
	require.GreaterOrEqual(t, a.Timestamp, before)
	require.LessOrEqual(t, a.Timestamp, time.Now().UnixMilli())
	require.Greater(t, a.Invalidated["took_ms"], 0.0)
	delete(a.Invalidated, "took_ms")
	require.Equal(t, map[string]any{"redis_entries": 0.0, "memory_entries": 4.0, "complete": true, "confirmed": true}, a.Invalidated)
}

func TestMetricsInTheDocumentedForm(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	models := aside.TTL.ModelsAll.Key("all", "all")
	for range 4 {
		_, err := aside.GetOrLoad(context.Background(), c, models, func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
	}
	for _, h := range []http.Handler{asidehttp.AdminHandler(c, options(io.Discard)), asidehttp.Metrics(c, options(io.Discard))} {
		w := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyRead)
		require.Equal(t, http.StatusOK, w.Code)
		var got struct {
			Metrics map[string]map[string]any `json:"metrics"`
			Memory  map[string]any            `json:"memory"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		m := got.Metrics["models"]
		require.Equal(t, []any{3.0, 1.0, 0.0, 0.75, 0.25}, []any{m["hits"], m["misses"], m["errors"], m["hitRate"], m["missRate"]})
		require.Equal(t, map[string]any{"total_keys": 1.0, "pattern": "models:*", "keys": []any{"models:all:all"}, "complete": true}, got.Memory)
	}
}

func TestOnlyAHundredKeysAreListed(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	for i := range 150 {
		require.NoError(t, aside.Set(context.Background(), c, aside.TTL.ModelsGateway.Key("g", i), i))
	}
	w := ask(asidehttp.Metrics(c, options(io.Discard)), "GET", "/?pattern=models:g:*", "", "Bearer "+keyRead)
	var got struct {
		Memory struct {
			TotalKeys int      `json:"total_keys"`
			Keys      []string `json:"keys"`
		} `json:"memory"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Equal(t, 150, got.Memory.TotalKeys)
	require.Len(t, got.Memory.Keys, 100)
	require.IsIncreasing(t, got.Memory.Keys)
}

func TestAClosedCacheIs503(t *testing.T) {
	t.Parallel()
	var log output
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(&log))
	require.NoError(t, c.Close())
	for _, body := range []string{
		`{"category":"models"}`, `{"category":"all"}`, `{"pattern":"models:*"}`, `{"keys":["models:all:all"]}`, `{"tags":["a"]}`,
		`{"category":"models","dry_run":true}`,
	} {
		w := ask(h, "POST", "/", body, "Bearer "+keyAll)
		require.Equal(t, 503, w.Code, body)
		require.Contains(t, problemOf(t, w).Detail, "closed")
	}
	require.Equal(t, 503, ask(asidehttp.Health(c, asidehttp.HealthOptions{}), "GET", "/", "").Code)
	logged(t, &log, `"status":503`, 1)
	require.Equal(t, 503, ask(asidehttp.AdminHandler(nil, options(io.Discard)), "POST", "/", `{"category":"models"}`, "Bearer "+keyAll).Code)
	require.Equal(t, 503, ask(asidehttp.Health(nil, asidehttp.HealthOptions{}), "GET", "/", "").Code)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	memory := newCache(t, aside.Options{})
	var o aside.Options
	o.Redis.InitAddress = []string{"127.0.0.1:1"}
	degraded := newCache(t, o)
	for _, tt := range []struct {
		cache   *aside.Cache
		options asidehttp.HealthOptions
		method  string
		status  int
		state   aside.State
	}{
		{memory, asidehttp.HealthOptions{}, "GET", 200, aside.StateMemory},
		{memory, asidehttp.HealthOptions{FailDegraded: true}, "GET", 200, aside.StateMemory},
		{degraded, asidehttp.HealthOptions{}, "GET", 200, aside.StateDegraded},
		{degraded, asidehttp.HealthOptions{FailDegraded: true}, "GET", 503, aside.StateDegraded},
		{degraded, asidehttp.HealthOptions{}, "HEAD", 200, aside.StateDegraded},
		{degraded, asidehttp.HealthOptions{}, "POST", 405, ""},
	} {
		w := ask(asidehttp.Health(tt.cache, tt.options), tt.method, "/", "")
		require.Equal(t, tt.status, w.Code)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		if tt.state == "" {
			require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			continue
		}
		var health aside.Health
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &health))
		require.Equal(t, tt.state, health.State)
		require.NotContains(t, w.Body.String(), "127.0.0.1")
	}
}

// A client that goes away before the end of its body, or sends none of what it has announced, changes nothing.
func TestABodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	left := seed(t, c)
	r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(`{"category":"all"}`), failing{}))
	r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + keyAll}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 400, w.Code)
	require.Equal(t, seeded, left())
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the connection broke") }

// Whoever sends no valid key is held to the limit; whoever has one is served all the same, from the same address.
func TestRequestsWithoutAValidKeyAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst = 0.5, 3
		h := asidehttp.AdminHandler(c, o)
		for range 3 {
			require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", "Bearer "+keyWrong).Code)
		}
		for _, authorization := range [][]string{{"Bearer " + keyWrong}, nil} {
			w := ask(h, "POST", "/", `{"category":"all"}`, authorization...)
			require.Equal(t, 429, w.Code)
			require.Equal(t, "2", w.Header().Get("Retry-After"))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.Empty(t, w.Header().Get("WWW-Authenticate"))
			require.Contains(t, problemOf(t, w).Detail, "Retry-After")
		}
		require.Equal(t, 200, ask(h, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code)
		time.Sleep(2 * time.Second)
		require.Equal(t, 401, ask(h, "GET", "/?metrics=true", "", "Bearer "+keyWrong).Code)
	})
}

// A body of unannounced length is read no further than is allowed.
func TestAnEndlessBodyIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	left := seed(t, c)
	body := &counting{Reader: io.LimitReader(io.MultiReader(strings.NewReader(`{"category":"all"}`), spaces{}), 50<<20)}
	r := httptest.NewRequest("POST", "/", body)
	require.Equal(t, int64(-1), r.ContentLength)
	r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + keyAll}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 413, w.Code)
	require.Less(t, body.n, 256<<10)
	require.Equal(t, seeded, left())
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func keysOf(texts ...string) (list []aside.Secret) {
	for _, text := range texts {
		list = append(list, aside.NewSecret(text))
	}
	return list
}
