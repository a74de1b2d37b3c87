package browser

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// A holder keeps requests for a path until they are let go.
type holder struct {
	http.Handler
	held chan struct{} // one for each request that is held

	mu   sync.Mutex
	path string        // guarded by mu
	over chan struct{} // closed when they are let go; guarded by mu
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	path, over := h.path, h.over
	h.mu.Unlock()
	if path != "" && strings.HasSuffix(r.URL.Path, path) {
		h.held <- struct{}{}
		<-over
	}
	h.Handler.ServeHTTP(w, r)
}

// hold keeps requests for a path from now on, and returns a function that lets them go.
func (h *holder) hold(path string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	over := make(chan struct{})
	h.path, h.over = path, over
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.path = ""
		close(over)
	})
}

// An answer that arrives after the operator has signed out shows nothing, neither now nor to who signs in next.
func TestAnAnswerAfterSigningOutShowsNothing(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	load(t, c, models.Key("seen-by-the-operator"), 3)
	const chip, row = "document.querySelector('button.chip')", "document.querySelector('button.link')"
	for _, of := range []struct{ name, view, path, begin string }{
		{"a poll of the session", "keys", "session.json", ""},
		{"a poll of figures", "overview", "overview.json", ""},
		{"a listing", "keys", "keys.json", chip},
		{"a value", "keys", "entry.json", row},
		{"a count", "invalidate", "invalidate", "document.querySelector('button.primary')"},
	} {
		t.Run(of.name, func(t *testing.T) {
			t.Parallel()
			h := &holder{Handler: asidehttp.Dashboard(c, options()), held: make(chan struct{}, 100)}
			s := serve(t, "/", h)
			tb := newTab(t, false, 1280, 800)
			tb.login(s.url, keyAll)
			tb.awaitText("Causes of misses")
			tb.run(navigate(of.view))
			tb.await("the view", "document.querySelector('nav a[aria-current]').hash === '#"+of.view+"'")
			switch of.begin {
			case row:
				tb.await("the form", chip)
				eval[any](tb, chip+".click()")
			case "":
			default:
				if of.view == "invalidate" {
					eval[any](tb, "document.querySelector('textarea').value = 'models:seen-by-the-operator'")
				}
			}
			if of.begin != "" {
				tb.await("what begins it", of.begin)
			}
			release := h.hold(of.path)
			defer release()
			if of.begin != "" {
				eval[any](tb, of.begin+".click()")
			}
			<-h.held
			eval[any](tb, "window.answered = new Promise(done => new PerformanceObserver((list) => list.getEntries().some(e => e.name.includes('"+of.path+"')) && done()).observe({ type: 'resource' }))")
			eval[any](tb, "[...document.querySelectorAll('header button')].at(-1).click()")
			tb.await("the login", "document.querySelector('input[name=key]')")
			release()
			eval[any](tb, "window.answered.then(() => new Promise(done => setTimeout(done, 300)))")
			require.True(t, eval[bool](tb, "Boolean(document.querySelector('input[name=key]')) && !document.querySelector('header, dialog')"), "the login stays")
			tb.run(navigate("keys"))
			eval[any](tb, "document.querySelector('input[name=key]').focus()")
			tb.press(keyRead, "\r")
			tb.await("the next operator is in", chip)
			require.False(t, eval[bool](tb, "document.body.innerText.includes('seen-by-the-operator') || Boolean(document.querySelector('.result').textContent)"))
			eval[any](tb, chip+".click()")
			tb.awaitText("1 found")
		})
	}
}

// A second click, while the answer to the first one is awaited, opens no second dialog.
func TestOneValueIsShownAtATime(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	for i := range 3 {
		load(t, c, models.Key(i), 1)
	}
	h := &holder{Handler: asidehttp.Dashboard(c, options()), held: make(chan struct{}, 100)}
	tb := newTab(t, false, 1280, 800)
	tb.login(serve(t, "/", h).url, keyAll)
	tb.awaitText("Causes of misses")
	tb.run(navigate("keys"))
	tb.await("the form", "document.querySelector('button.chip')")
	eval[any](tb, "document.querySelector('button.chip').click()")
	tb.awaitText("3 found")
	release := h.hold("entry.json")
	defer release()
	eval[any](tb, "document.querySelectorAll('button.link').forEach(b => b.click())")
	<-h.held
	release()
	tb.await("a value", "document.querySelector('dialog')")
	eval[any](tb, "new Promise(done => setTimeout(done, 300))")
	require.Equal(t, 1, eval[int](tb, "document.querySelectorAll('dialog').length"))
	tb.shot("value")
}
