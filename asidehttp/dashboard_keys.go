package asidehttp

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/gatewayz/aside"
)

// How much of a listing the page gets.
const (
	mostRows      = 200
	mostTags      = 8         // of a row
	mostOfListing = 512 << 10 // bytes of keys and tags
)

// A keyRow is one cached value in a listing. Times are in seconds.
type keyRow struct {
	Key      string     `json:"key"`
	Tier     aside.Tier `json:"tier"`
	TTL      float64    `json:"ttl"`
	KeptFor  float64    `json:"keptFor"`
	Age      float64    `json:"age"`
	Size     int64      `json:"size"`
	Codec    string     `json:"codec,omitempty"`
	Tags     []string   `json:"tags"`
	AllTags  int        `json:"allTags"`
	Stale    bool       `json:"stale,omitempty"`
	Negative bool       `json:"negative,omitempty"`
}

func keyRowOf(info aside.KeyInfo) keyRow {
	return keyRow{
		info.Key, info.Tier, seconds(info.TTL), seconds(info.KeptFor), seconds(info.Age), info.Size, info.Codec,
		append([]string{}, info.Tags[:min(len(info.Tags), mostTags)]...), len(info.Tags), info.Stale, info.Negative,
	}
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// keys lists the first keys of a pattern, in the order in which they are found. It ends with the last row that fits, and scans nothing beyond.
func (d *dashboard) keys(r *http.Request, who visitor, query url.Values) (any, *problem) {
	pattern, p := policies(d.cache.Policies()).pattern(query.Get("pattern"))
	now := d.standing(d.cache.Metrics())
	switch {
	case !now.Usable: // which knows no category
		return nil, problemOf(aside.ErrClosed)
	case p != nil:
		return nil, p
	}
	start, rows, size, more := time.Now(), []keyRow{}, 0, false
	seen := make(map[string]bool, mostRows)
	waiting, cancel := context.WithTimeout(r.Context(), defaultWait)
	defer cancel()
	err := d.scan(r.Context(), waiting, who, pattern, func(info aside.KeyInfo) bool {
		if seen[info.Key] { // SCAN may return a key twice
			return true
		}
		row := keyRowOf(info)
		size += len(row.Key)
		for _, tag := range row.Tags {
			size += len(tag)
		}
		if more = len(rows) == mostRows || size > mostOfListing; more {
			return false
		}
		seen[info.Key] = true
		rows = append(rows, row)
		return true
	})
	why := ""
	if err != nil {
		why = message(err)
	}
	return struct {
		standing
		Pattern string   `json:"pattern"`
		Rows    []keyRow `json:"rows"`
		More    bool     `json:"more"`
		Error   string   `json:"error,omitempty"` // why the listing ends before its end
		TookMS  float64  `json:"took_ms"`
	}{now, pattern.String(), rows, more, why, milliseconds(time.Since(start))}, nil
}
