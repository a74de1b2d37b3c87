package browser

import (
	"bufio"
	"fmt"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// alone is the variable that makes this program serve a dashboard: "CALLS MISSES".
const alone = "ASIDE_BROWSER_SERVE"

// process starts a process with a dashboard.
func process(t *testing.T, calls, misses int) *url.URL {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", alone, calls, misses))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	at, err := url.Parse(strings.TrimSpace(line))
	require.NoError(t, err)
	return at
}

// Behind a load balancer each poll may reach another process. No figure is made of the counters of two.
func TestTwoProcessesBehindOneAddress(t *testing.T) {
	t.Parallel()
	to := []*url.URL{process(t, 1000, 100), process(t, 3000, 1500)} // hit rates of 90% and 50%
	var next atomic.Int64
	s := serve(t, "/cache/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to[next.Add(1)%2]) }})
	tb := newTab(t, false, 1280, 800)
	tb.open(s.url)
	// What the page shows is watched from the start: hits of calls, as soon as it draws them.
	eval[any](tb, `window.seen = new Set(); new MutationObserver(() => {
		const rows = [...document.querySelectorAll('tbody th')].filter(e => e.textContent === 'models').map(e => e.parentElement)
		for (const row of rows) seen.add([2, 3].map(i => row.children[i].textContent).join(' of '))
	}).observe(document.body, { childList: true, subtree: true, characterData: true })`)
	tb.await("the form", "document.activeElement?.name === 'key'")
	tb.press(keyAll, "\r")
	tb.await("both are known", "document.querySelector('header select')?.options.length === 3")
	tb.awaitText("60.0%")
	tb.shot("processes")
	rate := func() float64 {
		return eval[float64](tb, "Number([...document.querySelectorAll('tbody th')].find(e => e.textContent === 'models').parentElement.children[4].textContent.replace(/[^0-9.]/g, ''))")
	}
	sum := rate()
	require.Positive(t, sum)
	require.LessOrEqual(t, sum, 4000.0, "calls of several seconds")
	shows := map[string]bool{}
	for i := 1; i <= 2; i++ {
		eval[any](tb, fmt.Sprintf("(e => { e.selectedIndex = %d; e.dispatchEvent(new Event('change')) })(document.querySelector('header select'))", i))
		tb.await("one process", "document.querySelectorAll('tbody tr').length > 0 && !document.body.innerText.includes('60.0%')")
		for hits := range map[string]bool{"90.0%": true, "50.0%": true} {
			shows[hits] = shows[hits] || eval[bool](tb, fmt.Sprintf("document.body.innerText.includes(%q)", hits))
		}
		require.Less(t, rate(), sum)
		polls := s.requests.Load()
		require.Eventually(t, func() bool { return s.requests.Load() >= polls+3 }, bound, 10*time.Millisecond, "polls that reach both")
	}
	require.Equal(t, map[string]bool{"90.0%": true, "50.0%": true}, shows)
	seen := eval[[]string](tb, "[...seen]")
	require.Subset(t, []string{"90.0% of 1,000", "50.0% of 3,000", "60.0% of 4,000"}, seen, "nothing else was ever shown")
	require.Contains(t, seen, "60.0% of 4,000")
	require.Len(t, seen, 3)
}
