package browser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// tabTo presses Tab until the focus is where an expression about it is true.
func (tb *tab) tabTo(what, expression string) {
	tb.t.Helper()
	for range 80 {
		tb.press(kb.Tab)
		if eval[bool](tb, "Boolean((e => "+expression+")(document.activeElement))") {
			return
		}
	}
	tb.t.Fatalf("the Tab key does not come to %s", what)
}

// link is true for a tab of the page.
func link(text string) string { return fmt.Sprintf("e.tagName === 'A' && e.textContent === %q", text) }

func pressed(text string) string {
	return fmt.Sprintf("e.tagName === 'BUTTON' && e.textContent === %q", text)
}

// shot keeps a picture for who looks at the page, in the directory of ASIDE_SCREENSHOTS.
func (tb *tab) shot(name string) {
	tb.t.Helper()
	if dir := os.Getenv("ASIDE_SCREENSHOTS"); dir != "" {
		tb.picture(filepath.Join(dir, name+".png"))
	}
}

// An operator does all there is to do, without a mouse.
func TestByKeyboardAlone(t *testing.T) {
	t.Parallel()
	dark := false
	for name, mount := range mounts() {
		dark = !dark
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, aside.Options{})
			for i := range 5 {
				load(t, c, models.Key("gateway", i), 3, aside.WithTags("supplier 3"))
			}
			load(t, c, sessions.Key("ABC"), 1)
			s := mount(t, c)
			tb := newTab(t, dark, 1280, 800)
			tb.login(s.url, keyWrong)
			tb.awaitText("This key is not accepted")
			require.True(t, eval[bool](tb, "document.activeElement.name === 'key'"))
			tb.press(keyAll, kb.Enter) // what was typed is selected
			tb.awaitText("Causes of misses")
			require.True(t, eval[bool](tb, "location.pathname.endsWith('/')"), "308 to the path with a slash")

			tb.tabTo("the view of keys", link("Keys"))
			tb.press(kb.Enter)
			tb.awaitText("Nothing is scanned until you ask")
			tb.tabTo("the pattern", "e.name === 'pattern'")
			tb.press("models:gateway:*", kb.Enter)
			tb.awaitText("5 found")
			tb.tabTo("a column to sort by", "e.textContent.startsWith('Size')")
			tb.press(kb.Enter)
			tb.await("it is sorted", "document.querySelector('th[aria-sort=descending]')?.textContent.startsWith('Size')")
			tb.tabTo("a key", "e.textContent === 'models:gateway:3'")
			tb.press(kb.Enter)
			tb.awaitText("value of models:gateway:3")
			tb.press(kb.Escape)
			tb.await("it is closed", "!document.querySelector('dialog')")
			require.Equal(t, "models:gateway:3", eval[string](tb, "document.activeElement.textContent"), "the focus is back")

			tb.tabTo("the view that invalidates", link("Invalidate"))
			tb.press(kb.Enter)
			tb.awaitText("nothing is changed before you confirm")
			tb.tabTo("what by", "e.name === 'kind'")
			tb.press(kb.ArrowRight)
			tb.await("by pattern", "document.querySelector('[name=kind]:checked').value === 'pattern'")
			tb.tabTo("the pattern", "e.name === 'names'")
			tb.press("models:gateway:*", kb.Enter)
			tb.awaitText("Invalidate 5 values?")
			require.Equal(t, "Cancel", eval[string](tb, "document.activeElement.textContent"))
			tb.press(kb.Enter)
			tb.await("it is closed", "!document.querySelector('dialog')")
			require.Empty(t, c.Recent().Invalidations, "a dry run changes nothing, and Cancel neither")
			tb.press(kb.Enter) // in the field, where the focus is again
			tb.awaitText("Invalidate 5 values?")
			tb.tabTo("the confirmation", pressed("Invalidate"))
			tb.press(kb.Enter)
			tb.awaitText("Invalidated. 5 values removed")
			require.Equal(t, "operator", c.Recent().Invalidations[0].Actor)
			require.Equal(t, []string{"models:gateway:*"}, c.Recent().Invalidations[0].Names)

			tb.tabTo("the last events", link("Recent"))
			tb.press(kb.Enter)
			tb.awaitText("models:gateway:*")
			tb.tabTo("the end", pressed("Sign out"))
			tb.press(kb.Enter)
			tb.await("the form", "document.activeElement?.name === 'key' && document.activeElement.value === ''")
			require.NotContains(t, eval[string](tb, "document.documentElement.outerHTML"), "canary")
			tb.keepsNothing(s)
		})
	}
}

// keepsNothing checks that the page has asked nobody else, and has left nothing in the browser.
func (tb *tab) keepsNothing(s *site) {
	tb.t.Helper()
	tb.mu.Lock()
	for _, request := range tb.requests {
		_, url, _ := strings.Cut(request, " ")
		if !strings.HasPrefix(url, s.url) && !strings.HasPrefix(url, "data:image/svg") && url != "about:blank" {
			tb.t.Error("somebody else was asked: " + request)
		}
		require.NotContains(tb.t, url, "canary")
	}
	tb.mu.Unlock()
	require.Equal(tb.t, "", eval[string](tb, "document.cookie"))
	require.Equal(tb.t, 0, eval[int](tb, "localStorage.length + sessionStorage.length"))
}

// hostile are names that would do harm if they were markup, or were not seen.
var hostile = []string{
	`<img src=x onerror="window.harm=1">`, `<script>window.harm=1</script>`, `"><svg onload=window.harm=1>`, `javascript:window.harm=1`, `${window.harm=1}{{harm=1}}`,
	"admin\u202etxt.exe", "zero\u200bwidth\u2060\ufeff", "line\nbreak\ttab\u0000nul\u0085", "isolate\u2066\u2069\u061c\U000e0041", strings.Repeat("long ", 90) + "end",
}

func TestHostileNamesDoNoHarm(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	for i, name := range hostile {
		load(t, c, models.Key(name, i), 1, aside.WithTags(name))
		_, err := c.InvalidateTags(aside.WithActor(t.Context(), name), "other "+name)
		require.NoError(t, err)
		_, err = aside.GetOrLoad(t.Context(), c, sessions.Key(name), func(context.Context) (string, error) { return "", errors.New(name) })
		require.Error(t, err)
	}
	o := options()
	o.Name = "<b>\u202eheading"
	s := dashboard(t, c, o)
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url, keyAll)
	tb.awaitText("Causes of misses")
	tb.run(navigate("keys"))
	tb.await("the form", "document.querySelector('button.chip')")
	eval[any](tb, "document.querySelector('button.chip').click()")
	tb.awaitText("10 found")
	tb.shot("hostile")
	text := eval[string](tb, "document.body.innerText")
	for _, sign := range []string{`<img src=x onerror="window.harm=1">`, `<script>`, `javascript:window.harm=1`, `admin\u{202e}txt.exe`, `zero\u{200b}width\u{2060}\u{feff}`, `line\u{a}break\u{9}tab\u{0}nul\u{85}`, `isolate\u{2066}\u{2069}\u{61c}\u{e0041}`} {
		require.Contains(t, text, sign)
	}
	rows := eval[int](tb, "document.querySelectorAll('button.link').length")
	require.Equal(t, len(hostile), rows)
	for i := range rows {
		eval[any](tb, fmt.Sprintf("document.querySelectorAll('button.link')[%d].click()", i))
		tb.await("one value", "document.querySelector('dialog.side')")
		eval[any](tb, "document.querySelector('dialog.side').close()")
		tb.await("it is closed", "!document.querySelector('dialog')")
	}
	tb.run(navigate("recent"))
	tb.awaitText("Failed loads")
	tb.awaitText(`other admin\u{202e}txt.exe`)
	tb.shot("hostile-recent")
	tb.run(navigate("invalidate"))
	tb.awaitText("nothing is changed")
	eval[any](tb, "document.querySelector('[value=tags]').click()")
	tb.await("by tags", "document.querySelector('textarea')")
	tb.run(chromedp.SetValue("textarea", hostile[0]+"\n"+hostile[5], chromedp.ByQuery))
	eval[any](tb, "document.querySelector('form').requestSubmit()")
	tb.awaitText("Invalidate 2 values?")
	tb.shot("hostile-dialog")
	eval[any](tb, "document.querySelector('dialog .danger').click()")
	tb.awaitText("Invalidated.")
	require.True(t, eval[bool](tb, "window.harm === undefined"))
	require.Equal(t, 0, eval[int](tb, "document.querySelectorAll('img, iframe, #page script, #page style, #page [style], #page b').length"))
	require.Empty(t, tb.unexpected(), "no violation of the Content-Security-Policy")
	tb.expect("TrustedHTML")
	tb.expect("Trusted Type")
	require.True(t, eval[bool](tb, "(() => { try { document.body.innerHTML = '<i>'; return false } catch { return true } })()"), "innerHTML throws")
	tb.keepsNothing(s)
}

func navigate(view string) chromedp.Action {
	return chromedp.Evaluate(fmt.Sprintf("location.hash = %q", view), nil)
}

func TestForEverythingTheNameIsTyped(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	load(t, c, models.Key("a"), 1)
	s := dashboard(t, c, options())
	tb := newTab(t, true, 1280, 800)
	tb.login(s.url+"#invalidate", keyAll)
	tb.awaitText("nothing is changed")
	eval[any](tb, "document.querySelector('[value=all]').click()")
	tb.await("everything", "document.querySelector('[value=all]').checked && !document.querySelector('[name=names]')")
	eval[any](tb, "document.querySelector('form').requestSubmit()")
	tb.awaitText("Invalidate everything: 1 value?")
	require.Equal(t, "Cancel", eval[string](tb, "document.activeElement.textContent"))
	disabled := func() bool { return eval[bool](tb, "document.querySelector('dialog .danger').disabled") }
	require.True(t, disabled())
	tb.run(chromedp.Focus("dialog input", chromedp.ByQuery))
	tb.press("test cach")
	require.True(t, disabled())
	tb.press(kb.Enter)
	require.Empty(t, c.Recent().Invalidations)
	tb.press("e")
	tb.await("the name is whole", "!document.querySelector('dialog .danger').disabled")
	tb.shot("dark-everything")
	tb.press(kb.Enter)
	tb.awaitText("Invalidated.")
	require.Equal(t, "all", c.Recent().Invalidations[0].Kind)
}

func TestAKeyThatOnlyReadsCannotInvalidate(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	load(t, c, models.Key("a"), 1)
	s := dashboard(t, c, options())
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url+"#invalidate", keyRead)
	tb.awaitText("Causes of misses") // the first view that it may see
	require.Equal(t, "Overview,Redis,Keys,Recent,Hot keys", eval[string](tb, "[...document.querySelectorAll('nav a')].map(a => a.textContent).join()"))
	tb.run(navigate("keys"))
	tb.await("the form", "document.querySelector('button.chip')")
	eval[any](tb, "document.querySelector('button.chip').click()")
	tb.await("a key", "document.querySelector('button.link')")
	eval[any](tb, "document.querySelector('button.link').click()")
	tb.awaitText("Values are not shown to this key")
	require.False(t, eval[bool](tb, "document.querySelector('dialog').innerText.includes('Invalidate')"))
	status, _ := answer(t, "POST", s.url+"invalidate", keyRead, `{"category":"models"}`)
	require.Equal(t, http.StatusForbidden, status)
	require.Empty(t, c.Recent().Invalidations)
}

// A page behind a server that goes away says so, and goes on when it is back.
func TestALostServer(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.Dashboard(c, options())
	load(t, c, models.Key("a"), 4)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(listener) }()
	tb := newTab(t, false, 1280, 800)
	tb.login("http://"+addr+"/", keyAll)
	tb.awaitText("Causes of misses")
	require.NoError(t, server.Close())
	tb.awaitText("The server does not answer")
	require.Contains(t, eval[string](tb, "document.querySelector('header').innerText"), "No answer")
	require.Contains(t, eval[string](tb, "document.body.innerText"), "75.0%", "what it has shown stays")
	tb.shot("lost")
	listener, err = net.Listen("tcp", addr)
	require.NoError(t, err)
	server = &http.Server{Handler: h}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	tb.await("it is back", "!document.body.innerText.includes('does not answer')")
	// A key that is taken out of the options: the page asks for another.
	server.Close()
	listener, err = net.Listen("tcp", addr)
	require.NoError(t, err)
	o := options()
	o.Keys = o.Keys[1:]
	last := &http.Server{Handler: asidehttp.Dashboard(c, o)}
	go func() { _ = last.Serve(listener) }()
	defer last.Close()
	tb.awaitText("This key is no longer accepted")
	require.NotContains(t, eval[string](tb, "document.body.innerText"), "75.0%")
	tb.shot("refused")
}

// A page that nobody looks at asks nothing. One that is looked at asks once in two seconds.
func TestPollsOfAPage(t *testing.T) {
	t.Parallel()
	s := dashboard(t, newCache(t, aside.Options{}), options())
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url, keyAll)
	tb.awaitText("Nothing has been asked of this cache yet")
	tb.shot("empty")
	before := s.requests.Load()
	eval[any](tb, "new Promise(done => setTimeout(done, 4500))")
	polls := s.requests.Load() - before
	require.LessOrEqual(t, polls, int64(3*3), "three polls at most, of three requests at most")
	require.Positive(t, polls)
	eval[any](tb, "Object.defineProperty(document, 'hidden', { configurable: true, value: true }); document.dispatchEvent(new Event('visibilitychange'))")
	before = s.requests.Load()
	eval[any](tb, "new Promise(done => setTimeout(done, 4500))")
	require.LessOrEqual(t, s.requests.Load()-before, int64(1), "one may have been on its way")
	before = s.requests.Load()
	eval[any](tb, "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
	require.Eventually(t, func() bool { return s.requests.Load() > before }, bound, 10*time.Millisecond)
}

// Numbers are on one line. Long names are cut, and whole on hover and on focus. A narrow window has no scroll bar of its own.
func TestLongNamesAndNarrowWindows(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a-long-name-", 60) + "end"
	policies := []aside.Policy{models, {Name: "p", Category: "q", Label: long, TTL: time.Hour}}
	c := newCache(t, aside.Options{Policies: policies})
	for i := range 3 {
		load(t, c, models.Key(long, i), 2000, aside.WithTags(strings.Repeat("tag ", 100)+"end", "b"))
	}
	load(t, c, policies[1].Key(1), 1)
	s := dashboard(t, c, options())
	const wraps = `[...document.querySelectorAll('.number, .figure strong, td')].filter(e => e.offsetHeight > 40).map(e => e.textContent).join()`
	const overflows = `document.documentElement.scrollWidth > innerWidth`
	for _, width := range []int{1280, 700, 360} {
		tb := newTab(t, width == 700, width, 740)
		tb.login(s.url, keyAll)
		tb.awaitText("Causes of misses")
		require.Empty(t, eval[string](tb, wraps), width)
		require.False(t, eval[bool](tb, overflows), width)
		tb.shot(fmt.Sprintf("narrow-%d", width))
		tb.run(navigate("keys"))
		tb.await("the form", "document.querySelector('button.chip')")
		eval[any](tb, "document.querySelector('button.chip').click()")
		tb.awaitText("3 found")
		require.Empty(t, eval[string](tb, wraps), width)
		require.False(t, eval[bool](tb, overflows), width)
		for _, cell := range []string{"button.link", "td .cut"} {
			require.True(t, eval[bool](tb, fmt.Sprintf("(e => e.scrollWidth > e.clientWidth)(document.querySelector(%q))", cell)), "it is cut")
			eval[any](tb, fmt.Sprintf("document.querySelector(%q).focus()", cell))
			tb.await("the whole text on focus", "!document.getElementById('tip').hidden && document.getElementById('tip').textContent.includes('end')")
		}
		tb.shot(fmt.Sprintf("long-%d", width))
		tb.press(kb.Escape)
		tb.await("Escape hides it", "document.getElementById('tip').hidden")
		eval[any](tb, "document.querySelector('button.link').scrollIntoView({ block: 'center', inline: 'start' }), new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
		var box []float64
		tb.run(chromedp.Evaluate("(r => [r.left + 20, r.top + 5])(document.querySelector('button.link').getBoundingClientRect())", &box))
		tb.run(chromedp.MouseEvent("mouseMoved", box[0], box[1]))
		tb.await("the whole text on hover", "!document.getElementById('tip').hidden && document.getElementById('tip').textContent === document.querySelector('button.link').textContent")
		require.True(t, eval[bool](tb, "(r => r.left >= 0 && r.right <= innerWidth && r.top >= 0 && r.bottom <= innerHeight)(document.getElementById('tip').getBoundingClientRect())"))
		require.False(t, eval[bool](tb, overflows), width)
	}
}

func TestACacheThatIsNotThere(t *testing.T) {
	t.Parallel()
	closed := newCache(t, aside.Options{})
	s := dashboard(t, closed, options())
	load(t, closed, models.Key("a"), 4)
	closed.Close()
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url, keyAll)
	tb.awaitText("This cache is closed")
	tb.awaitText("75.0%")
	tb.shot("closed")
	tb = newTab(t, true, 1280, 800)
	tb.login(dashboard(t, nil, options()).url, keyAll)
	tb.awaitText("There is no cache here")
	tb.shot("nil")
}

func TestAKeyIsKeptForTheTabIfAsked(t *testing.T) {
	t.Parallel()
	s := dashboard(t, newCache(t, aside.Options{}), options())
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url, keyAll)
	tb.awaitText("Sign out")
	tb.open(s.url)
	tb.awaitText("API key") // it was in a variable
	eval[any](tb, "document.querySelector('[name=keep]').click()")
	tb.press(keyAll, kb.Enter)
	tb.awaitText("Sign out")
	tb.open(s.url)
	tb.awaitText("Sign out")
	eval[any](tb, "[...document.querySelectorAll('button')].find(b => b.textContent === 'Sign out').click()")
	tb.awaitText("API key")
	tb.keepsNothing(s)
}

// The program's own session opens the page without a key, and invalidates.
func TestTheSessionOfTheProgram(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	load(t, c, models.Key("a"), 1)
	o := options()
	o.Allow = func(r *http.Request) (string, []asidehttp.Scope) {
		if id, err := r.Cookie("id"); err != nil || id.Value != "ann" {
			return "", nil
		}
		return "ann", []asidehttp.Scope{asidehttp.ScopeAll}
	}
	h := asidehttp.Dashboard(c, o)
	s := serve(t, "/admin/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			http.SetCookie(w, &http.Cookie{Name: "id", Value: "ann", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
			return
		}
		h.ServeHTTP(w, r)
	}))
	tb := newTab(t, false, 1280, 800)
	tb.open(s.url)
	tb.awaitText("API key")
	tb.open(s.origin + "/login")
	tb.open(s.url + "#invalidate")
	tb.awaitText("nothing is changed")
	require.Contains(t, eval[string](tb, "document.querySelector('header').innerText"), "ann")
	tb.run(chromedp.SetValue("textarea", "models:a", chromedp.ByQuery))
	eval[any](tb, "document.querySelector('form').requestSubmit()")
	tb.awaitText("Invalidate 1 value?")
	eval[any](tb, "document.querySelector('dialog .danger').click()")
	tb.awaitText("Invalidated. 1 value removed")
	require.Equal(t, "ann", c.Recent().Invalidations[0].Actor)
}
