package page

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestThePageIsSmallAndAsksNobodyElse(t *testing.T) {
	t.Parallel()
	total := 0
	require.NoError(t, fs.WalkDir(files, "files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(path)
		total += len(body)
		text := string(body)
		for _, link := range regexp.MustCompile(`(?:https?:)?//[\w.]+`).FindAllString(text, -1) {
			if strings.HasPrefix(link, "http") {
				require.Equal(t, "http://www.w3.org", link, "%s: the name of SVG, which nobody asks for", path)
			}
		}
		for _, text := range []string{"innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "localStorage", "document.cookie", "<style", " style=", "url(", "@import"} {
			require.NotContains(t, string(body), text, path)
		}
		return err
	}))
	t.Logf("%d bytes", total)
	require.LessOrEqual(t, total, 60<<10)
}

// The page refers to what is beside it, so it works wherever it is.
func TestThePageIsServedBelowAnyPrefix(t *testing.T) {
	t.Parallel()
	s := New(false)
	strip := func(prefix string) http.Handler { return http.StripPrefix(prefix, s) }
	for _, c := range []struct {
		h      http.Handler
		target string
		at     string // the Location, empty for the page
	}{
		{s, "/", ""}, {s, "/admin/cache/", ""}, {s, "/a%2Fb/", ""},
		{s, "/admin/cache", "./cache/"}, {s, "/admin/a%20b", "./a%20b/"}, {s, "/admin/a:b", "./a:b/"}, {s, "//evil.example", "./evil.example/"}, {s, `/x/\evil.example`, "./%5Cevil.example/"},
		{strip("/admin/cache"), "/admin/cache/", ""}, {strip("/admin/cache/"), "/admin/cache/", ""},
		{strip("/admin/cache"), "/admin/cache", "./cache/"}, {strip("/admin"), "/admin/cache", "./cache/"},
	} {
		w := get(c.h, "http://host"+c.target)
		if c.at == "" {
			require.Equal(t, 200, w.Code, c.target)
			require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
			require.Contains(t, w.Body.String(), `src="page.js"`)
		} else {
			require.Equal(t, 308, w.Code, c.target)
			require.Equal(t, c.at, w.Header().Get("Location"), c.target)
		}
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "trusted-types 'none'")
	}
	w := get(s, "/admin/cache/page.js")
	require.Equal(t, 200, w.Code)
	require.Equal(t, "text/javascript; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, "no-cache", w.Header().Get("Cache-Control"))
	require.Equal(t, 304, get(s, "/page.js", "If-None-Match", w.Header().Get("ETag")).Code)
	require.Equal(t, 404, get(s, "/admin/cache/no.js", "Sec-Fetch-Dest", "script").Code)
	require.Equal(t, 404, get(s, "/admin/cache/page.html", "Sec-Fetch-Dest", "empty").Code, "the page has one address")
	require.Equal(t, 308, get(s, "/admin/cache", "Sec-Fetch-Dest", "document").Code)
	post := httptest.NewRecorder()
	s.ServeHTTP(post, httptest.NewRequest("POST", "/", nil))
	require.Equal(t, 405, post.Code)
}

func TestOnlyAPageWithASessionSendsCookies(t *testing.T) {
	t.Parallel()
	require.NotContains(t, get(New(false), "/").Body.String(), "data-session")
	require.Contains(t, get(New(true), "/").Body.String(), "<html data-session lang")
}
