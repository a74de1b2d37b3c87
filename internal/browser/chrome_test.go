package browser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// bound is how long a test waits for what must happen: far longer than it takes, as a busy machine may stand still for seconds.
const bound = time.Minute

// browser is the one Chromium of all tests. It is started by the first that needs it.
var browser struct {
	once sync.Once
	ctx  context.Context // of the browser
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	if of := os.Getenv(alone); of != "" {
		var calls, misses int
		if _, err := fmt.Sscan(of, &calls, &misses); err != nil {
			panic(err)
		}
		serveAlone(calls, misses)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	code := m.Run()
	if browser.stop != nil {
		browser.stop()
	}
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// chromium is the path of a Chromium, or of a browser that is one by another name.
func chromium() (path string, err error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err = exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("chromium not found")
}

func startBrowser() {
	path, err := chromium()
	if err != nil {
		browser.err = err
		return
	}
	profile, err := os.MkdirTemp("", "aside-browser-")
	if err != nil {
		browser.err = err
		return
	}
	allocated, stop := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.UserDataDir(profile),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		// Tabs are watched by several tests at once: none may be slowed down because it is not in front.
		chromedp.Flag("disable-background-timer-throttling", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true), chromedp.WSURLReadTimeout(bound),
	)
	ctx, end := chromedp.NewContext(allocated)
	browser.ctx, browser.err = ctx, chromedp.Run(ctx)
	browser.stop = func() {
		_ = chromedp.Cancel(ctx) // closes the browser, and waits for its end
		end()
		stop()
		_ = os.RemoveAll(profile)
	}
}

// A tab is a window of a browser profile of its own: no cookie, no storage and no cache of another one.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // the URLs that were asked for
	wrong    []string // errors of the script, and violations of the Content-Security-Policy
	expected []string // what of them is no failure
}

// newTab opens a tab, in which nothing may go wrong but what the test expects.
func newTab(t *testing.T, dark bool, width, height int) *tab {
	t.Helper()
	browser.once.Do(startBrowser)
	if browser.err != nil && browser.ctx == nil {
		if os.Getenv("ASIDE_REQUIRE_CHROMIUM") == "1" {
			t.Fatal("chromium not found, and ASIDE_REQUIRE_CHROMIUM=1 asks for it: run scripts/install-test-tools.sh")
		}
		t.Skip("chromium not found: skipping; `make tools` installs it")
	}
	require.NoError(t, browser.err)
	ctx, stop := chromedp.NewContext(browser.ctx, chromedp.WithTargetID(newWindow(t)))
	tb := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		tb.mu.Lock()
		defer tb.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			tb.requests = append(tb.requests, e.Request.Method+" "+e.Request.URL)
		case *runtime.EventExceptionThrown:
			tb.wrong = append(tb.wrong, "exception: "+e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				tb.wrong = append(tb.wrong, fmt.Sprintf("console: %s", e.Args[0].Value))
			}
		case *log.EventEntryAdded:
			if e.Entry.Source == log.SourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
				tb.wrong = append(tb.wrong, "security: "+e.Entry.Text)
			}
		}
	})
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	t.Cleanup(func() {
		for _, wrong := range tb.unexpected() {
			t.Error("in the browser: " + wrong)
		}
		stop()
	})
	require.NoError(t, chromedp.Run(ctx)) // without the deadline of run: the context of the first run is that of the tab
	tb.run(log.Enable(), network.Enable(), emulation.SetDeviceMetricsOverride(int64(width), int64(height), 1, false),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
	return tb
}

// newWindow opens an empty window in a profile of its own.
func newWindow(t *testing.T) target.ID {
	t.Helper()
	ctx := cdp.WithExecutor(browser.ctx, chromedp.FromContext(browser.ctx).Browser)
	profile, err := target.CreateBrowserContext().Do(ctx)
	require.NoError(t, err)
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(profile).WithNewWindow(true).Do(ctx)
	require.NoError(t, err)
	return id
}

func (tb *tab) unexpected() (list []string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
next:
	for _, wrong := range tb.wrong {
		for _, expected := range tb.expected {
			if strings.Contains(wrong, expected) {
				continue next
			}
		}
		list = append(list, wrong)
	}
	return list
}

// expect names what may go wrong, as the test causes it.
func (tb *tab) expect(text string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.expected = append(tb.expected, text)
}

func (tb *tab) run(actions ...chromedp.Action) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, bound)
	defer cancel()
	require.NoError(tb.t, chromedp.Run(ctx, actions...))
}

// eval returns what an expression is in the page.
func eval[T any](tb *tab, expression string) (value T) {
	tb.t.Helper()
	tb.run(chromedp.Evaluate(expression, &value, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return value
}

// await waits until an expression is true in the page.
func (tb *tab) await(what, expression string) {
	tb.t.Helper()
	for deadline := time.Now().Add(bound); ; time.Sleep(20 * time.Millisecond) {
		if eval[bool](tb, "Boolean("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("%s: it has not come to that. The page shows:\n%s\n%v", what, eval[string](tb, "document.body.innerText"), tb.unexpected())
		}
	}
}

// awaitText waits until the page shows a text.
func (tb *tab) awaitText(text string) {
	tb.t.Helper()
	tb.await("the page shows "+text, fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// press sends keys of the keyboard to what has the focus.
func (tb *tab) press(keys ...string) {
	tb.t.Helper()
	for _, key := range keys {
		tb.run(chromedp.KeyEvent(key))
	}
}

func (tb *tab) open(url string) {
	tb.t.Helper()
	tb.run(chromedp.Navigate(url))
}

// login types a key into the form.
func (tb *tab) login(url, key string) {
	tb.t.Helper()
	tb.open(url)
	tb.await("the form has the focus", "document.activeElement?.name === 'key'")
	tb.press(key, "\r")
}

// picture writes what the tab shows to a file.
func (tb *tab) picture(file string) {
	tb.t.Helper()
	var png []byte
	tb.run(chromedp.CaptureScreenshot(&png))
	require.NoError(tb.t, os.WriteFile(file, png, 0o644))
}
