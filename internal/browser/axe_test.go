package browser

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// axe is the script that looks for what keeps people out: https://github.com/dequelabs/axe-core. scripts/install-test-tools.sh fetches it.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../../.tools/axe-4.14.1.min.js")
	if errors.Is(err, os.ErrNotExist) && os.Getenv("ASIDE_REQUIRE_AXE") != "1" {
		t.Skip("axe-core not found: skipping; `make tools` installs it where there is npm")
	}
	require.NoError(t, err)
	return string(script)
}

func (tb *tab) accessible(what, script string) {
	tb.t.Helper()
	if !eval[bool](tb, "Boolean(window.axe)") {
		tb.run(chromedp.Evaluate(script+"; true", nil))
	}
	found := eval[[]string](tb, `axe.run(document, { resultTypes: ['violations'] }).then(r => r.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 160) + ' ' + (n.any[0]?.message ?? ''))))`)
	require.Empty(tb.t, found, "%s:\n%s", what, strings.Join(found, "\n"))
}

// Nothing that axe-core knows of keeps anybody from using the page: contrast, names, roles, order.
func TestThePageIsAccessible(t *testing.T) {
	t.Parallel()
	script := axe(t)
	for _, dark := range []bool{false, true} {
		name := map[bool]string{false: "light", true: "dark"}[dark]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, aside.Options{HotKeys: 10})
			s := dashboard(t, c, options())
			for i := range 3 {
				load(t, c, models.Key(strings.Repeat("long ", 100), i), 2000, aside.WithTags("a", "b\u202e"))
			}
			_, err := c.InvalidateTags(t.Context(), "a")
			require.NoError(t, err)
			load(t, c, models.Key("x"), 2)
			tb := newTab(t, dark, 1100, 800)
			tb.run(page.SetBypassCSP(true)) // axe is no script of the page
			tb.open(s.url)
			tb.await("the form has the focus", "document.activeElement?.name === 'key'")
			tb.accessible("the login", script)
			tb.press(keyWrong, "\r")
			tb.awaitText("not accepted")
			tb.accessible("a wrong key", script)
			tb.press(keyAll, "\r")
			tb.awaitText("Causes of misses")
			for _, view := range []string{"overview", "redis", "recent", "hot", "invalidate", "keys"} {
				tb.run(navigate(view))
				tb.await(view, "document.querySelector('#main h2') && document.querySelector('nav [aria-current]').hash === '#"+view+"'")
				tb.shot(name + "-" + view)
				tb.accessible(view, script)
			}
			eval[any](tb, "document.querySelector('button.chip').click()")
			tb.await("a key", "document.querySelector('button.link')")
			tb.shot(name + "-listed")
			tb.accessible("a listing", script)
			eval[any](tb, "document.querySelector('button.link').click()")
			tb.awaitText("value of")
			tb.shot(name + "-value")
			tb.accessible("one value", script)
			eval[any](tb, "[...document.querySelectorAll('dialog button')].find(b => b.textContent === 'Invalidate…').click()")
			tb.await("the confirmation", "document.querySelector('dialog.ask')")
			tb.shot(name + "-confirm")
			tb.accessible("a confirmation", script)
			eval[any](tb, "document.querySelector('dialog .danger').click()")
			tb.awaitText("Invalidated.")
			tb.accessible("a result", script)
			c.Close()
			tb.awaitText("This cache is closed")
			tb.run(navigate("overview"))
			tb.awaitText("Causes of misses")
			tb.accessible("a closed cache", script)
		})
	}
}
