package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// memoryOnly removes the variables of Redis from the environment of a test.
func memoryOnly(t *testing.T) {
	for _, name := range []string{"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB", "REDIS_TLS", "CACHE_API_KEY", "CACHE_READ_KEY", "CACHE_SECRET", "REVALIDATE_URL", "REVALIDATE_SECRET"} {
		t.Setenv(name, "")
	}
	t.Setenv("TMPDIR", t.TempDir())
}

// output is a writer that can be read concurrently.
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

func TestTheServerRunsUntilItIsTold(t *testing.T) {
	memoryOnly(t)
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10", "-speedup", "10000"}, &stdout, &stderr)
	}()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	require.Eventually(t, func() bool { return address.MatchString(stdout.String()) }, time.Minute, 5*time.Millisecond, "%s", &stderr)
	require.Contains(t, stdout.String(), demoKey(1))

	response, err := http.Get(address.FindString(stdout.String()) + "/api/models?gateway=openrouter")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Contains(t, string(body), "openrouter/")
	http.DefaultClient.CloseIdleConnections()

	stop()
	require.Equal(t, 0, <-code, "%s", &stderr)
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	require.NoError(t, err)
	require.Empty(t, left, "the temporary database is removed")
}

func TestADatabaseIsFilledOnce(t *testing.T) {
	memoryOnly(t)
	file := filepath.Join(t.TempDir(), "a name with ? # and %41.db")
	for _, filled := range []bool{true, false} {
		var stdout, stderr output
		ctx, stop := context.WithCancel(t.Context())
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10", "-db", file}, &stdout, &stderr)
		}()
		require.Eventually(t, func() bool { return strings.Contains(stdout.String(), "http://") }, time.Minute, 5*time.Millisecond, "%s", &stderr)
		stop()
		require.Equal(t, 0, <-code, "%s", &stderr)
		require.Equal(t, filled, strings.Contains(stderr.String(), "filling"))
		require.FileExists(t, file)
	}
}

func TestAReport(t *testing.T) {
	for name, on := range map[string]func(t *testing.T){
		"in memory": func(*testing.T) {},
		"on Redis": func(t *testing.T) {
			server := redistest.Start(t)
			t.Setenv("REDIS_URL", "redis://"+server.Addr())
			t.Cleanup(func() {
				var left []string
				for _, key := range server.MustDo(t, "KEYS", "*").([]any) {
					name := key.(string)
					if _, own, found := strings.Cut(name, "%:"); found && strings.HasPrefix(name, "report-") {
						name = own // the last part of the report has namespaces
					}
					if !strings.HasPrefix(name, "%") {
						left = append(left, name)
					}
				}
				require.Empty(t, left, "a report leaves no value and no lease behind")
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			memoryOnly(t)
			on(t)
			var stdout, stderr output
			code := run(t.Context(), []string{"-report", "-quick", "-users", "20", "-requests", "600", "-speedup", "5000", "-scale", "1", "-ttl-scale", "20000"}, &stdout, &stderr)
			require.LessOrEqual(t, code, 1, "%s", &stderr) // so few requests do not always meet every target
			text := stdout.String()
			require.Contains(t, text, "The cache is "+name)
			require.Contains(t, text, "compressed 5000 times")
			for _, kind := range mix {
				require.Regexp(t, `(?m)^ +`+regexp.QuoteMeta(string(kind.area))+` +\d+ `, text)
			}
			for _, target := range targets {
				require.Regexp(t, `(?m)^ +`+string(target.area)+` .* (met|MISSED)$`, text)
			}
			require.Regexp(t, `(?m)^ +all requests +600 .* (met|MISSED)$`, text)
			require.Contains(t, text, "an hour of a TTL is 180ms")
			require.Regexp(t, `behind +unchanged +waited`, text)
			for _, row := range expiringRows {
				require.Regexp(t, `(?m)^ +`+row.name+` +\d+ +\d+ .*\d$`, text)
				require.Len(t, regexp.MustCompile(`(?m)^ +`+row.name+` +\d+ `).FindAllString(text[strings.Index(text, "All reads"):], -1), 2, "a line of each table")
			}
			require.NotContains(t, stderr.String(), "warm", "a report begins with a cold cache")
			require.Contains(t, stderr.String(), "cache off")
			require.Contains(t, stderr.String(), "600 of 600 requests  100%")
		})
	}
}

func TestAReportNeedsTheRedisThatIsNamed(t *testing.T) {
	memoryOnly(t)
	t.Setenv("REDIS_URL", "redis://user:hidden@127.0.0.1:1")
	var stdout, stderr output
	require.Equal(t, 1, run(t.Context(), []string{"-report", "-quick", "-users", "10", "-scale", "1"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "Redis")
	require.NotContains(t, stderr.String(), "hidden")
	require.Empty(t, stdout.String())
}

// Without a secret, API keys could be guessed from the hashes in Redis. And two processes on one database must have the same keys.
func TestASecretIsNeededWhereAPIKeysAreKeptInRedis(t *testing.T) {
	memoryOnly(t)
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1")
	var stdout, stderr output
	args := []string{"-db", filepath.Join(t.TempDir(), "gateway.db")}
	require.Equal(t, 2, run(t.Context(), args, &stdout, &stderr))
	require.Contains(t, stderr.String(), "CACHE_SECRET is not set")

	cfg, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	opts, err := optionsFromEnv(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Len(t, opts.Secret.Reveal(), 32, "a temporary database is of this process alone")
}

func TestWrongCommandLines(t *testing.T) {
	memoryOnly(t)
	for line, want := range map[string]string{
		"-nonsense":            "-nonsense",
		"extra":                `unexpected argument "extra"`,
		"-scale 0":             "-scale 0: want 1 to 1000",
		"-users 3":             "-users 3",
		"-speedup 0":           "-speedup 0",
		"-speedup NaN":         "-speedup NaN",
		"-upstream-min -1s":    "-upstream-min -1s",
		"-upstream-max 1s":     "want at least -upstream-min",
		"-upstream-max 2h":     "at most 45s",
		"-quick":               "-quick belongs to -report",
		"-requests 500":        "-requests belongs to -report",
		"-ttl-scale 500":       "-ttl-scale belongs to -report",
		"-report -ttl-scale 1": "-ttl-scale 1: want 60 to 100000",
		"-report -warm=false":  "-warm does not belong to -report",
		"-report -requests 5":  "-requests 5",
		"-report -callers 0":   "-callers 0",
		"-addr 127.0.0.1:0 -catalog /no/such/file": "/no/such/file",
		"-addr nowhere:at:all":                     "nowhere:at:all",
	} {
		var stdout, stderr output
		code := run(t.Context(), strings.Fields(line), &stdout, &stderr)
		require.NotZero(t, code, line)
		require.Contains(t, stderr.String(), want, line)
		require.Empty(t, stdout.String(), line)
	}
	t.Setenv("REDIS_PORT", "secret-port")
	var stdout, stderr output
	require.Equal(t, 2, run(t.Context(), nil, &stdout, &stderr))
	require.Contains(t, stderr.String(), "REDIS_PORT")
	require.NotContains(t, stderr.String(), "secret-port")
}

func TestHelp(t *testing.T) {
	var stdout, stderr output
	require.Equal(t, 0, run(t.Context(), []string{"-h"}, &stdout, &stderr))
	require.Contains(t, stdout.String(), "-catalog")
	require.Empty(t, stderr.String())
}

func TestTheCatalogueGrowsUnderOtherIDs(t *testing.T) {
	cat := ownCatalogue()
	require.GreaterOrEqual(t, len(cat.gateways), 21)
	for _, big := range []*catalogue{cat.repeat(3), cat.reach(2 * cat.size)} {
		require.Equal(t, cat.gateways, big.gateways)
		require.GreaterOrEqual(t, big.size, 2*cat.size)
		ids := make(map[string]bool)
		for _, models := range big.models {
			for _, m := range models {
				require.False(t, ids[m.ID], m.ID)
				ids[m.ID] = true
			}
		}
		require.Len(t, ids, big.count)
	}
}

func TestWrongCatalogues(t *testing.T) {
	for text, want := range map[string]string{
		``:                              "want an object",
		`[1]`:                           "want an object",
		`{}`:                            "no entry",
		`{"a": {"mode": "chat"}}`:       "no entry",
		`{"a": 1}`:                      `model "a"`,
		`{"a": {"litellm_provider":1}}`: `model "a"`,
	} {
		_, err := parseCatalogue([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestTheFrontEndIsToldOfWhatIsInvalidated(t *testing.T) {
	memoryOnly(t)
	told := make(chan string, 10)
	frontEnd := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told <- r.Header.Get("X-Revalidate-Secret") + " " + string(body)
	}))
	defer frontEnd.Close()
	t.Setenv("REVALIDATE_URL", frontEnd.URL)
	t.Setenv("REVALIDATE_SECRET", "secret-of-the-front-end")
	t.Setenv("CACHE_API_KEY", operatorKey)

	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10"}, &stdout, &stderr) }()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	require.Eventually(t, func() bool { return address.MatchString(stdout.String()) }, time.Minute, 5*time.Millisecond, "%s", &stderr)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address.FindString(stdout.String())+"/api/cache/invalidate", strings.NewReader(`{"category":"models"}`))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+operatorKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, `secret-of-the-front-end {"tag":"category:models"}`, <-told)
	http.DefaultClient.CloseIdleConnections()
	stop()
	require.Equal(t, 0, <-code, "%s", &stderr)
	require.NotContains(t, stdout.String()+stderr.String(), "secret-of")
	require.NotContains(t, stdout.String()+stderr.String(), operatorKey)

	t.Setenv("REVALIDATE_SECRET", "")
	require.Equal(t, 2, run(t.Context(), []string{"-addr", "127.0.0.1:0", "-users", "10"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "Secret is empty")
}
