package asidehttp_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func linesIn(t *testing.T, log *output) (lines []map[string]any) {
	t.Helper()
	synctest.Wait() // what a timer has to write is written
	for text := range strings.Lines(log.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &fields))
		lines = append(lines, fields)
	}
	return lines
}

// A key that sends many orders has a line for each of the first ones, and one a second for all that come after them. No order is left out.
func TestAKeyThatSendsManyOrdersIsSummedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		c := newCache(t, aside.Options{})
		h := asidehttp.AdminHandler(c, options(&log))
		seed(t, c)
		ask(h, "POST", "/", `{"keys":["models:all:all"]}`, "Bearer "+keyAll)
		require.Len(t, linesIn(t, &log), 1, "the first one has its line at once")
		for i := range 600 { // for a minute
			body := fmt.Sprintf(`{"keys":["models:%d","models:%d.2"]}`, i, i)
			switch i {
			case 300:
				seed(t, c)
				body = `{"category":"all"}`
			case 500:
				c.Close()
			}
			ask(h, "POST", "/", body, "Bearer "+keyAll)
			if i%30 == 0 && i < 500 {
				ask(h, "POST", "/", fmt.Sprintf(`{"pattern":"sessions:%d:*"}`, i), "Bearer "+keyChange)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		orders, names, failed, removed, many, everything, lines := 0, 0, 0, 0, 0, 0, 0
		for _, line := range linesIn(t, &log) {
			require.Equal(t, "INFO", line["level"])
			if line["key"] == "deploy" {
				require.Equal(t, "pattern", line["by"], "another key has its own lines")
				many++
				continue
			}
			lines++
			names += int(line["count"].(float64))
			n, summed := line["orders"].(float64)
			if !summed {
				n = 1
				removed += int(line["removed"].(float64))
				orders++
				continue
			}
			orders += int(n)
			failed += int(line["failed"].(float64))
			removed += int(line["removed"].(float64))
			require.LessOrEqual(t, len(line["names"].([]any)), 10)
			require.NotEmpty(t, line["names"])
			require.NotEmpty(t, line["client"])
			if by := line["by"].(map[string]any); by["everything"] != nil {
				everything++
			}
			require.Equal(t, line["failed"].(float64) > 0, line["error"] != nil)
		}
		require.Equal(t, 601, orders)
		require.Equal(t, 1+2*599+1, names)
		require.Equal(t, 100, failed, "the cache was closed")
		require.Equal(t, 1+seeded, removed)
		require.Equal(t, 1, everything)
		require.Equal(t, 17, many)
		require.LessOrEqual(t, lines, 10+62)

		// A minute later its orders have lines of their own again.
		time.Sleep(time.Minute)
		before := len(linesIn(t, &log))
		for range 10 {
			ask(h, "POST", "/", `{"keys":["models:all:all"]}`, "Bearer "+keyAll)
		}
		require.Len(t, linesIn(t, &log), before+10)
	})
}

// What a key may not do is written down now and then, of each key by itself.
func TestWhatKeysMayNotDoIsWrittenDownNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		h := asidehttp.AdminHandler(newCache(t, aside.Options{}), options(&log))
		for i := range 305 {
			ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyChange)
			if i == 50 {
				ask(h, "POST", "/", `{"category":"models"}`, "Bearer "+keyRead)
			}
			time.Sleep(100 * time.Millisecond)
		}
		lines := linesIn(t, &log)
		require.Len(t, lines, 5)
		counted := 0.0
		for _, line := range lines {
			require.Equal(t, "asidehttp: denied", line["msg"])
			counted += line["requests"].(float64)
		}
		require.Equal(t, []any{"dashboard", "invalidate", 1.0}, []any{lines[1]["key"], lines[1]["scope"], lines[1]["requests"]})
		require.Equal(t, 302.0, counted, "those of the last half second are not counted yet")
	})
}
