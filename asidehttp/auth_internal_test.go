package asidehttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

const secret = "f3b1c7d2a4958e60f3b1c7d2a4958e60f3b1c7d2a4958e60f3b1c7d2a4958e60"

func ringOf(t testing.TB, n, at int) *keyring {
	t.Helper()
	o := Options{}
	for i := range n {
		o.APIKeys = append(o.APIKeys, aside.NewSecret(fmt.Sprintf("another key, number %d", i)))
	}
	if at >= 0 {
		o.APIKeys[at] = aside.NewSecret(secret)
	}
	ring, err := o.keyring()
	require.NoError(t, err)
	return ring
}

func asks(authorization ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Authorization"] = authorization
	return r
}

// What makes the time tell nothing: whatever is sent, as many digests of one length are compared, in constant time, as there are
// keys. The digests are all that is kept.
func TestEveryCredentialIsComparedWithEveryKey(t *testing.T) {
	t.Parallel()
	const n = 7
	for name, sent := range map[string][]string{
		"right":              {"Bearer " + secret},
		"wrong":              {"Bearer " + strings.Repeat("0", len(secret))},
		"wrong at the end":   {"Bearer " + secret[:len(secret)-1] + "1"},
		"the beginning":      {"Bearer " + secret[:8]},
		"too long":           {"Bearer " + strings.Repeat(secret, 100)},
		"empty":              {"Bearer "},
		"of another scheme":  {"Basic " + secret},
		"twice":              {"Bearer " + secret, "Bearer " + secret},
		"none":               nil,
		"without its scheme": {secret},
	} {
		for at := -1; at < n; at++ {
			ring := ringOf(t, n, at)
			var compared int
			ring.equal = func(a, b []byte) int {
				compared++
				require.Len(t, a, sha256.Size)
				require.Len(t, b, sha256.Size)
				require.NotContains(t, string(b), secret[:8])
				return subtle.ConstantTimeCompare(a, b)
			}
			_, ok := ring.find(asks(sent...))
			require.Equal(t, name == "right" && at >= 0, ok, "%s, at %d", name, at)
			require.Equal(t, n, compared, "%s, at %d", name, at)
			require.NotContains(t, fmt.Sprintf("%#v", ring.list), secret)
		}
	}
}

func TestAKeyThatIsThereTwiceMayWhatEitherMay(t *testing.T) {
	t.Parallel()
	ring, err := Options{Keys: []Key{
		{Name: "a", Secret: aside.NewSecret(secret), Scopes: []Scope{ScopeRead}}, {Name: "b", Secret: aside.NewSecret(secret), Scopes: []Scope{ScopeInvalidate}}, {Name: "c", Secret: aside.NewSecret("another key of sixteen bytes"), Scopes: []Scope{ScopeAll}},
	}}.keyring()
	require.NoError(t, err)
	who, ok := ring.find(asks("Bearer " + secret))
	require.True(t, ok)
	require.Equal(t, mayRead|mayInvalidate, who.may)
	require.Equal(t, "b", who.name)
}

// The figures: what a wrong key takes, by how much of it is right. (The length of what is sent counts, since it is hashed; who sends
// it knows that.) They are logged; what is asserted leaves room for a machine that does other things meanwhile, and is met as soon
// as one of several rounds meets it.
func TestTheTimeTellsNoKey(t *testing.T) {
	ring := ringOf(t, 3, 1)
	kinds := []string{"nothing right", "half right", "all but the last byte right"}
	requests := map[string]*http.Request{
		kinds[0]: asks("Bearer " + strings.Repeat("0", len(secret))),
		kinds[1]: asks("Bearer " + secret[:len(secret)/2] + strings.Repeat("0", len(secret)/2)),
		kinds[2]: asks("Bearer " + secret[:len(secret)-1] + "1"),
	}
	const batches, batch = 400, 50
	for round, mayTake := 0, time.Now().Add(3*time.Minute); time.Now().Before(mayTake); round++ {
		times := map[string][]time.Duration{}
		for range batches {
			for _, kind := range kinds { // in turns: what else the machine does meets all of them
				start := time.Now()
				for range batch {
					if _, ok := ring.find(requests[kind]); ok {
						t.Fatal(kind)
					}
				}
				times[kind] = append(times[kind], time.Since(start)/batch)
			}
		}
		medians := map[string]time.Duration{}
		low, high := time.Hour, time.Duration(0)
		for kind, list := range times {
			slices.Sort(list)
			medians[kind] = list[len(list)/2]
			low, high = min(low, medians[kind]), max(high, medians[kind])
		}
		t.Logf("medians of %d times %d comparisons: %v", batches, batch, medians)
		if high-low <= low/10 {
			return
		}
		t.Logf("round %d: apart by %v", round, high-low)
	}
	t.Error("the medians stay apart by more than a tenth")
}
